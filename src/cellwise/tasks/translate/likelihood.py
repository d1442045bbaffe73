"""The log-likelihood of targets under a softmax over a large vocabulary, and its gradient, block by block.

Logits of a batch (N, V) are larger than a processor's cache: each pass over them waits for memory. Here a block of rows
is multiplied, turned into probabilities in place, and left; the backward pass reads the probabilities once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["log_likelihood"]

BLOCK = 1 << 17  # logits that are handled together: half a megabyte in float32


def log_likelihood(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target under softmax(states @ weight.T + bias), and the mean over the vocabulary.

    states (N, E), weight (V, E), bias (V,), targets (N,) ids; returns two tensors (N,). The second is what label
    smoothing asks for (Szegedy et al. 2016). Differentiable once in states, weight and bias."""
    own, mean = _LogLikelihood.apply(states, weight, bias, targets)
    return own, mean


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        count, size = len(states), len(weight)
        chances = states.new_empty(count, size)
        own, mean = states.new_empty(count), states.new_empty(count)
        for rows in _blocks(count, size):
            logits = chances[rows]
            torch.addmm(bias, states[rows], weight.t(), out=logits)
            highest = logits.amax(1, keepdim=True)
            logits.sub_(highest)
            taken, average = logits.gather(1, targets[rows, None])[:, 0], logits.mean(1)
            total = logits.exp_().sum(1)
            logits.div_(total[:, None])
            own[rows], mean[rows] = taken - total.log(), average - total.log()
        ctx.save_for_backward(states, weight, targets, chances)
        return own, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_own: Tensor, d_mean: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        states, weight, targets, chances = ctx.saved_tensors
        d_states, d_weight = torch.empty_like(states), torch.zeros_like(weight)
        d_bias = weight.new_zeros(len(weight))
        for rows in _blocks(len(states), len(weight)):
            d_logits = chances[rows] * -(d_own[rows] + d_mean[rows])[:, None]
            d_logits += d_mean[rows, None] / len(weight)
            d_logits.scatter_add_(1, targets[rows, None], d_own[rows, None])
            torch.mm(d_logits, weight, out=d_states[rows])
            d_weight.addmm_(d_logits.t(), states[rows])
            d_bias += d_logits.sum(0)
        return d_states, d_weight, d_bias, None


def _blocks(count: int, size: int) -> list[slice]:
    """Rows that are handled together; at least 64, so that products stay efficient."""
    step = max(64, BLOCK // size)
    return [slice(start, start + step) for start in range(0, count, step)]
