"""How much the network counts, and how much the linear model beside it.

Two weights, fitted on sequences that neither has learned from (stacking: Wolpert 1992; with the network alone it is the
temperature of Guo et al. 2017). Few of them say little about two weights, so these are drawn towards what is expected
before anything is measured: equal shares."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["blend_of_logits", "blend_of_numbers"]

SPREAD = 0.7  # of the logarithm of a weight, around an equal share
STEPS = 40
PSEUDO = 10.0  # sequences that the expectation counts for, where numbers are blended


def blend_of_logits(network: Tensor, linear: Tensor | None, labels: Tensor) -> Tensor:
    """Weights (2,) of two sets of logits (N, C) with the least log loss of their sum at labels (N,); float64.

    linear: None leaves the network alone, with the weight 0 for the other."""
    sides = [network.double()] if linear is None else [network.double(), linear.double()]
    expected = -math.log(len(sides))
    logs = torch.full((len(sides),), expected, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([logs], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        blended = sum(weight * side for weight, side in zip(logs.exp(), sides, strict=True))
        entropy = nn.functional.cross_entropy(blended, labels, reduction="sum")
        value = entropy + ((logs - expected) / SPREAD).square().sum() / 2
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    made = torch.zeros(2, dtype=torch.float64)
    made[: len(sides)] = logs.detach().exp()
    return made


def blend_of_numbers(network: Tensor, linear: Tensor | None, targets: Tensor) -> Tensor:
    """Weights (2,) from 0 to 1, together 1, of two sets of numbers (N, 1) with the least squared error of their sum at
    targets (N,); float64."""
    if linear is None:
        return torch.tensor([1.0, 0.0], dtype=torch.float64)
    apart = network[:, 0].double() - linear[:, 0].double()
    wanted = targets.double() - linear[:, 0].double()
    pull = PSEUDO * apart.square().mean()
    share = (apart @ wanted + 0.5 * pull) / (apart.square().sum() + pull).clamp(min=1e-12)
    share = share.clamp(0.0, 1.0)
    return torch.stack([share, 1 - share])
