"""The kernels as operators of torch, so that autograd, torch.compile and torch.export see one opaque call.

cellwise::direction           x, offsets, states, resets, weights -> [output, *final states, tape]
cellwise::direction_backward  the same and gradients -> [gradient at x, *at states, *at weights]

A plain call does not go through torch's dispatcher, which costs more than a small kernel: it goes straight to
autograd's node, or without gradients to the kernel. Whatever traces, fakes or watches operators gets the operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellwise.backends.cpu import run
from cellwise.backends.cpu.engine import Engine, engine_of
from cellwise.backends.cpu.twice import second_derivative

Operator = Callable[..., list[Tensor]]


class Asked(NamedTuple):
    """What is no tensor in a call."""

    key: str
    bias: bool
    reverse: bool
    states: int


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


# --- the kernels ---------------------------------------------------------------------------------------------------


def _forward(
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


def _backward(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    tape: Tensor,
    output_gradient: Tensor,
    state_gradients: list[Tensor],
) -> list[Tensor]:
    engine = engine_of(key, x.dtype)
    steps = _steps(offsets, len(states[0]), reverse, resets, backward=True)
    names = stems(engine, bias)
    named = dict(zip(names, weights, strict=True))
    dx, dstates, found = run.backward(engine, x, named, steps, tape, output_gradient, state_gradients)
    return [dx, *dstates, *(found[name].contiguous() for name in names)]


# --- autograd ------------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operator: Operator,
        asked: Asked,
        offsets: Tensor,
        resets: Tensor | None,
        x: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        key, bias, reverse, count = asked
        states, weights = list(others[:count]), list(others[count:])
        found = operator(key, x, offsets, states, resets, weights, bias, reverse, True)
        ctx.asked = asked
        ctx.save_for_backward(offsets, resets, found[-1], x, *others)
        ctx.mark_non_differentiable(found[-1])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        offsets, resets, tape, x, *others = ctx.saved_tensors
        given = gradients[: 1 + ctx.asked.states]
        if not is_plain(x):
            found = _call_backward(
                torch.ops.cellwise.direction_backward.default, ctx.asked, offsets, resets, tape
            )(x, *others, *given)
        elif torch.is_grad_enabled():
            found = _Backward.apply(_backward, ctx.asked, offsets, resets, tape, x, *others, *given)
        else:
            found = _call_backward(_backward, ctx.asked, offsets, resets, tape)(x, *others, *given)
        return None, None, None, None, *found


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operator: Operator,
        asked: Asked,
        offsets: Tensor,
        resets: Tensor | None,
        tape: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.asked = asked
        ctx.save_for_backward(offsets, resets, *tensors)
        return tuple(_call_backward(operator, asked, offsets, resets, tape)(*tensors))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        offsets, resets, *tensors = ctx.saved_tensors
        key, bias, reverse, count = ctx.asked
        # The tape holds what x, states and weights determine: the derivative is taken through those.
        found = second_derivative(key, bias, reverse, count, offsets, resets, tensors, gradients)
        return None, None, None, None, None, *found


def _call_backward(
    operator: Operator, asked: Asked, offsets: Tensor, resets: Tensor | None, tape: Tensor
) -> Operator:
    """The operator as a function of x, states, weights, and the gradients at output and final states."""
    key, bias, reverse, count = asked

    def call(x: Tensor, *rest: Tensor) -> list[Tensor]:
        states, weights, given = rest[:count], rest[count : -1 - count], rest[-1 - count :]
        return operator(
            key,
            x,
            offsets,
            list(states),
            resets,
            list(weights),
            bias,
            reverse,
            tape,
            given[0],
            list(given[1:]),
        )

    return call


# --- the operators -------------------------------------------------------------------------------------------------


def direction(
    asked: Asked,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    tape: bool,
) -> list[Tensor] | tuple[Tensor, ...]:
    """[output (N, H), *final states (B, H), tape] of one layer in one direction, differentiable if there is a tape."""
    if not is_plain(x):
        return torch.ops.cellwise.direction.default(
            asked.key, x, offsets, states, resets, weights, asked.bias, asked.reverse, tape
        )
    if tape:
        return _Forward.apply(_forward, asked, offsets, resets, x, *states, *weights)
    return _forward(asked.key, x, offsets, states, resets, weights, asked.bias, asked.reverse, False)


def is_plain(x: Tensor) -> bool:
    """Whether nobody but autograd watches the operators that run."""
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, torch.nn.Parameter)
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._get_tracing_state() is None
    )


def _below_autograd(operator: Any) -> Operator:
    def call(*arguments: Any) -> list[Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*arguments)

    return call


def _direction_autograd(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    *rest: Any,
) -> list[Tensor]:
    below = _below_autograd(torch.ops.cellwise.direction.default)
    bias, reverse, tape = rest
    tensors = (x, *states, *weights)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return below(key, x, offsets, states, resets, weights, *rest)
    if not tape:
        raise RuntimeError("cellwise::direction was run without a tape and cannot be differentiated")
    return list(_Forward.apply(below, Asked(key, bias, reverse, len(states)), offsets, resets, *tensors))


def _backward_autograd(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    *rest: Any,
) -> list[Tensor]:
    below = _below_autograd(torch.ops.cellwise.direction_backward.default)
    bias, reverse, tape, output_gradient, state_gradients = rest
    tensors = (x, *states, *weights, output_gradient, *state_gradients)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return below(key, x, offsets, states, resets, weights, *rest)
    asked = Asked(key, bias, reverse, len(states))
    return list(_Backward.apply(below, asked, offsets, resets, tape, *tensors))


# In a compiled program x may have rows beyond the valid steps (Sequences): the kernels get the valid ones, and what
# comes out is zero beyond.


def _forward_of_valid(
    key: str, x: Tensor, offsets: Tensor, states: list[Tensor], resets: Tensor | None, *rest: Any
) -> list[Tensor]:
    count = int(offsets[-1])
    if count == len(x):
        return _forward(key, x, offsets, states, resets, *rest)
    cut = None if resets is None else resets[:count]
    output, *finals, tape = _forward(key, x[:count], _until_the_longest(offsets), states, cut, *rest)
    return [_longer(output, len(x)), *finals, _longer(tape, len(x)) if rest[-1] else tape]


def _backward_of_valid(
    key: str, x: Tensor, offsets: Tensor, states: list[Tensor], resets: Tensor | None, *rest: Any
) -> list[Tensor]:
    count = int(offsets[-1])
    weights, bias, reverse, tape, output_gradient, state_gradients = rest
    if count == len(x):
        return _backward(key, x, offsets, states, resets, *rest)
    cut = None if resets is None else resets[:count]
    until = _until_the_longest(offsets)
    kept = (tape[:count], output_gradient[:count], state_gradients)
    dx, *found = _backward(key, x[:count], until, states, cut, weights, bias, reverse, *kept)
    return [_longer(dx, len(x)), *found]


def _until_the_longest(offsets: Tensor) -> Tensor:
    return offsets[: 1 + int((offsets.diff() > 0).sum())]


def _longer(tensor: Tensor, count: int) -> Tensor:
    return torch.cat([tensor, tensor.new_zeros(count - len(tensor), *tensor.shape[1:])])


def _forward_shapes(
    key: str, x: Tensor, offsets: Tensor, states: list[Tensor], resets: Tensor | None, *rest: Any
) -> list[Tensor]:
    engine, hidden = engine_of(key, x.dtype), states[0].shape[1]
    shape = (x.shape[0], max(1, len(engine.plan.tape.columns)), engine.padded(hidden)) if rest[-1] else (0,)
    return [x.new_empty(x.shape[0], hidden), *map(torch.empty_like, states), x.new_empty(shape)]


def _backward_shapes(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    *rest: Any,
) -> list[Tensor]:
    return [torch.empty_like(each, memory_format=torch.contiguous_format) for each in (x, *states, *weights)]


_LIBRARY = torch.library.Library("cellwise", "FRAGMENT")


def _define(schema: str, kernel: Operator, autograd: Operator, shapes: Operator) -> None:
    name = schema.partition("(")[0]
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, kernel, "CPU")
    _LIBRARY.impl(name, autograd, "Autograd")
    torch.library.register_fake(f"cellwise::{name}", shapes, lib=_LIBRARY)


_TAKEN = "str key, Tensor x, Tensor offsets, Tensor[] states, Tensor? resets, Tensor[] weights, bool bias, bool reverse"
_define(
    f"direction({_TAKEN}, bool tape) -> Tensor[]", _forward_of_valid, _direction_autograd, _forward_shapes
)
_define(
    f"direction_backward({_TAKEN}, Tensor tape, Tensor output_gradient, Tensor[] state_gradients) -> Tensor[]",
    _backward_of_valid,
    _backward_autograd,
    _backward_shapes,
)
