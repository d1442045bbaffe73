"""The derivative of the kernels' derivative: that of the definition, which torch can differentiate again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cellwise.backends.base import RunDirection, Sequences, Weights
from cellwise.plan import SequencePlan

# By the key under which the operators know a cell: its plan, how to run it, and the stems with and without biases.
_DEFINITIONS: dict[str, tuple[SequencePlan, RunDirection]] = {}
_STEMS: dict[tuple[str, bool], tuple[str, ...]] = {}


def define(key: str, plan: SequencePlan, run: RunDirection, bias: bool, stems: tuple[str, ...]) -> None:
    """Say what the operators compute for a key, in differentiable torch."""
    _DEFINITIONS[key] = (plan, run)
    _STEMS[key, bias] = stems


def second_derivative(
    key: str,
    bias: bool,
    reverse: bool,
    count: int,
    offsets: Tensor,
    resets: Tensor | None,
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The gradients at x, states, weights and the gradients at outputs, given those at what the backward returned.

    Args:
        count: the number of states.
        tensors: x, states, weights, gradient at the output, gradients at the final states.
        gradients: for x, states and weights, those of the second pass.
    """
    plan, run = _DEFINITIONS[key]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, since what was given may depend on each other, and only what happens below is to be differentiated.
        views = [
            each.view_as(each) if each.requires_grad else each.detach().requires_grad_() for each in tensors
        ]
        sources, given = views[: -1 - count], views[-1 - count :]
        x, states, weights = sources[0], sources[1 : 1 + count], sources[1 + count :]
        # In a compiled program x may have rows beyond the valid steps.
        valid = x[: int(offsets[-1])]
        marks = None if resets is None else resets[: len(valid)].to(torch.bool)
        sequences = Sequences(valid, len(offsets) - 1, len(states[0]), offsets.diff(), marks)
        named = Weights(dict(zip(_STEMS[key, bias], weights, strict=True)))
        output, finals = run(plan, named, sequences, tuple(states), reverse)
        seeds = [given[0][: len(valid)], *given[1:]]
        first = _gradients((output, *finals), sources, seeds, create_graph=True)
    return _gradients(first, views, gradients, create_graph=again)


def _gradients(
    results: Sequence[Tensor], sources: Sequence[Tensor], seeds: Sequence[Tensor], create_graph: bool
) -> tuple[Tensor, ...]:
    pairs = [(each, seed) for each, seed in zip(results, seeds, strict=True) if each.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(source) for source in sources)
    return torch.autograd.grad(
        [each for each, _ in pairs],
        sources,
        [seed for _, seed in pairs],
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )
