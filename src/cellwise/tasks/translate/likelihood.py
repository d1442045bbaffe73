"""The log-likelihood of targets under a softmax over a large vocabulary, and its gradient, block by block.

Logits of a batch (N, V) are larger than a processor's cache: each pass over them waits for memory. Here a block of
rows is multiplied and turned into probabilities while it is in the cache; the backward pass is two products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["log_likelihood"]

BLOCK = 1 << 16  # logits that are handled together: a quarter of a megabyte in float32


def log_likelihood(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target under softmax(states @ weight.T + bias), and the mean over the vocabulary.

    states (N, E), weight (V, E), bias (V,), targets (N,) ids; returns two tensors (N,). The second is what label
    smoothing asks for (Szegedy et al. 2016). Differentiable once in states, weight and bias."""
    with torch.autocast(states.device.type, enabled=False):
        own, mean = _LogLikelihood.apply(states.to(weight.dtype), weight, bias, targets)
    return own, mean


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        count, size = len(states), len(weight)
        chances, total = states.new_empty(count, size), states.new_empty(count)
        step = max(64, BLOCK // size)  # rows; at least 64, so that products stay efficient
        logits = states.new_empty(min(step, count), size)
        for start in range(0, count, step):
            rows = slice(start, start + step)
            block, out = logits[: len(states[rows])], chances[rows]
            torch.addmm(bias, states[rows], weight.t(), out=block)
            torch.softmax(block, 1, out=out)
            total[rows] = block.amax(1) - out.amax(1).log()  # the logarithm of the sum of all exponentials
        own = (states * weight[targets]).sum(1) + bias[targets] - total
        mean = states @ weight.mean(0) + bias.mean() - total
        ctx.save_for_backward(states, weight, targets, chances)
        return own, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_own: Tensor, d_mean: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        # What the gradient of a logit has beside its probability is alike for all words, or of the target alone: it
        # needs no pass over all logits.
        states, weight, targets, chances = ctx.saved_tensors
        both, even = (d_own + d_mean)[:, None], d_mean / len(weight)
        d_states = (
            d_own[:, None] * weight[targets] + even[:, None] * weight.sum(0) - both * (chances @ weight)
        )
        with_bias = torch.cat([states, torch.ones_like(both)], 1)
        d_both = even @ with_bias - chances.t() @ (both * with_bias)
        d_both.index_add_(0, targets, d_own[:, None] * with_bias)
        return d_states, d_both[:, :-1], d_both[:, -1], None
