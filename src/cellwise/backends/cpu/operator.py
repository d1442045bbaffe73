"""The kernels as operators of torch, so that autograd, torch.compile and torch.export see one opaque call.

cellwise::direction           x, offsets, states, resets, weights -> [output, *final states, tape]
cellwise::direction_backward  the same and gradients -> [gradient at x, *at states, *at weights]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cellwise.backends.cpu import run
from cellwise.backends.cpu.engine import Engine, engine_of
from cellwise.errors import SecondDerivativeError


def stems(engine: Engine, bias: bool) -> tuple[str, ...]:
    """The weights that a direction takes, in the order in which the operators take them."""
    graph = engine.graph
    kinds = [kind for kind, gates in (("ih", graph.input_gates), ("hh", graph.state_gates)) if gates]
    found = [f"weight_{kind}" for kind in kinds]
    if bias:
        found += [f"bias_{kind}" for kind in kinds]
    return (*found, *graph.vectors, *graph.scalars)


def _steps(offsets: Tensor, batch: int, reverse: bool, resets: Tensor | None, backward: bool) -> run.Steps:
    # The layer's reverse direction meets a boundary after the step it stands before; and backward all is reversed.
    return run.Steps(offsets, batch, reverse != backward, resets, reset_first=reverse == backward)


@torch.library.custom_op("cellwise::direction", mutates_args=())
def direction(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    tape: bool,
) -> list[Tensor]:
    engine = engine_of(key, x.dtype)
    steps = _steps(offsets, len(states[0]), reverse, resets, backward=False)
    named = dict(zip(stems(engine, bias), weights, strict=True))
    output, finals, kept = run.forward(engine, x, states, named, steps, tape)
    return [output, *finals, kept if kept is not None else x.new_empty(0)]


@direction.register_fake
def _(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    tape: bool,
) -> list[Tensor]:
    engine = engine_of(key, x.dtype)
    hidden = states[0].shape[1]
    kept = (
        x.new_empty(len(x), max(1, len(engine.plan.tape.columns)), engine.padded(hidden))
        if tape
        else x.new_empty(0)
    )
    return [x.new_empty(len(x), hidden), *(torch.empty_like(state) for state in states), kept]


@torch.library.custom_op("cellwise::direction_backward", mutates_args=())
def direction_backward(
    key: str,
    x: Tensor,
    offsets: Tensor,
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    tape: Tensor,
    output_gradient: Tensor,
    state_gradients: list[Tensor],
) -> list[Tensor]:
    engine = engine_of(key, x.dtype)
    steps = _steps(offsets, len(state_gradients[0]), reverse, resets, backward=True)
    names = stems(engine, bias)
    named = dict(zip(names, weights, strict=True))
    dx, dstates, found = run.backward(engine, x, named, steps, tape, output_gradient, state_gradients)
    return [dx, *dstates, *(found[name].contiguous() for name in names)]


@direction_backward.register_fake
def _(
    key: str,
    x: Tensor,
    offsets: Tensor,
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    tape: Tensor,
    output_gradient: Tensor,
    state_gradients: list[Tensor],
) -> list[Tensor]:
    return [torch.empty_like(each) for each in (x, *state_gradients, *weights)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    key, x, offsets, states, resets, weights, bias, reverse, tape = inputs
    ctx.settings = (key, bias, reverse, tape, len(states))
    ctx.has_resets = resets is not None
    ctx.save_for_backward(x, offsets, output[-1], *([resets] if resets is not None else []), *weights)


def _backward(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    key, bias, reverse, tape, states = ctx.settings
    if not tape:
        raise RuntimeError("cellwise::direction was run without a tape and cannot be differentiated")
    x, offsets, kept, *rest = ctx.saved_tensors
    resets, weights = (rest[0], rest[1:]) if ctx.has_resets else (None, rest)
    output, *finals = gradients[: 1 + states]
    found = direction_backward(
        key, x, offsets, resets, list(weights), bias, reverse, kept, output, list(finals)
    )
    dx, dstates, dweights = found[0], found[1 : 1 + states], found[1 + states :]
    return None, dx, None, list(dstates), None, list(dweights), None, None, None


direction.register_autograd(_backward, setup_context=_setup)


def _no_setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    pass


def _twice(ctx: Any, gradients: list[Tensor]) -> tuple[Any, ...]:
    raise SecondDerivativeError


direction_backward.register_autograd(_twice, setup_context=_no_setup)
