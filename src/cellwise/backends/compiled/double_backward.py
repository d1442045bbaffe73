"""Derivatives that the kernels do not compute, through the definition, which torch can differentiate as often as asked.

That of the kernels' derivative, and the first one where many gradients arrive at once, for all of which torch
computes together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cellwise.backends.base import RunDirection, Sequences, Weights
from cellwise.backends.compiled.cell_kernels import CellKernels

_DEFINITION: list[RunDirection] = []


def register_reference(run: RunDirection) -> None:
    """Say how a layer in one direction runs in differentiable torch, whatever the cell."""
    _DEFINITION[:] = [run]


def first_derivative(
    kernels: CellKernels,
    bias: bool,
    reverse: bool,
    count: int,
    offsets: Tensor,
    resets: Tensor | None,
    sources: Sequence[Tensor],
    given: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients at x, states and weights, given those at the output and the final states; None if not needed.

    Args:
        count: the number of states.
        sources: x, states, weights.
        given: the gradient at the output, and at each final state; None for zero.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        views = _views(sources)
        results = _run(kernels, bias, reverse, count, offsets, resets, views)
        seeds = [
            None if seed is None else seed[: len(result)] for result, seed in zip(results, given, strict=True)
        ]
    return _gradients(results, views, seeds, create_graph=again)


def second_derivative(
    kernels: CellKernels,
    bias: bool,
    reverse: bool,
    count: int,
    offsets: Tensor,
    resets: Tensor | None,
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor],
) -> list[Tensor | None]:
    """The gradients at x, states, weights and the gradients at outputs, given those at what the backward returned.

    Args:
        count: the number of states.
        tensors: x, states, weights, gradient at the output, gradients at the final states.
        gradients: for x, states and weights, those of the second pass.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        views = _views(tensors)
        sources, given = views[: -1 - count], views[-1 - count :]
        results = _run(kernels, bias, reverse, count, offsets, resets, sources)
        seeds = [seed[: len(result)] for result, seed in zip(results, given, strict=True)]
        first = _gradients(results, sources, seeds, create_graph=True)
    return _gradients(first, views, gradients, create_graph=again)


def _views(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What was given may depend on each other, and only what happens to these views is to be differentiated."""
    return [each.view_as(each) if each.requires_grad else each for each in tensors]


def _run(
    kernels: CellKernels,
    bias: bool,
    reverse: bool,
    count: int,
    offsets: Tensor,
    resets: Tensor | None,
    sources: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """The outputs of all valid steps and the final states, as the definition computes them."""
    (run,) = _DEFINITION
    x, states, weights = sources[0], sources[1 : 1 + count], sources[1 + count :]
    # In a compiled program x may have rows beyond the valid steps.
    valid = x[: int(offsets[-1])]
    marks = None if resets is None else resets[: len(valid)].to(torch.bool)
    sequences = Sequences(valid, len(offsets) - 1, len(states[0]), offsets.diff(), marks)
    named = dict(zip(kernels.stems[bias], weights, strict=True))
    once = {draw.name for draw in kernels.graph.draws if draw.per_sequence}
    named |= {name: named[name][: len(valid)] for name in kernels.graph.given if name not in once}
    output, finals = run(kernels.graph, Weights(named), sequences, tuple(states), reverse)
    return output, *finals


def _gradients(
    results: Sequence[Tensor | None],
    sources: Sequence[Tensor],
    seeds: Sequence[Tensor | None],
    create_graph: bool,
) -> list[Tensor | None]:
    """The gradients at those sources that need one, None at the others. A seed that is None is zero."""
    pairs = [
        (result, seed)
        for result, seed in zip(results, seeds, strict=True)
        if result is not None and seed is not None and result.requires_grad
    ]
    needed = [source for source in sources if source.requires_grad]
    if not pairs:
        return [torch.zeros_like(source) if source.requires_grad else None for source in sources]
    found = iter(
        torch.autograd.grad(
            [result for result, _ in pairs],
            needed,
            [seed for _, seed in pairs],
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    )
    return [next(found) if source.requires_grad else None for source in sources]
