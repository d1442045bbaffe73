"""The kernels as operators of torch, so that autograd, torch.compile and torch.export see one opaque call.

cellwise::direction           x, offsets, states, resets, weights -> [output, *final states, *kept]
cellwise::direction_backward  the same, what came out, and gradients -> [gradient at x, *at states, *at weights]

What is saved is for the backward pass alone (`saved.py`). In a compiled program x may have rows beyond the valid steps
(Sequences): what comes out is zero there.

A plain call does not come here: `plain.py` goes straight to autograd's node, or without gradients to the kernel.
Whatever traces, fakes or watches operators gets the operators, which `schema.py` tells torch of.

Longer than other files: torch wants every signature spelt out, and three ways lead to one kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cellwise import torch_internals
from cellwise.backends.compiled import plain
from cellwise.backends.compiled.arriving import are_transformed
from cellwise.backends.compiled.cell_kernels import CellKernels, kernels_of
from cellwise.backends.compiled.checks import (
    check_backward,
    check_forward,
    checked_kernels,
    checked_sizes,
)
from cellwise.backends.compiled.compiler import has_kernels
from cellwise.backends.compiled.double_backward import first_derivative, second_derivative
from cellwise.backends.compiled.plain import in_memory, is_plain, lies_in_memory
from cellwise.backends.compiled.saved import saved_layout
from cellwise.backends.compiled.time_schedule import schedule_of

Operator = Callable[..., list[Tensor]]


class CallAttributes(NamedTuple):
    """What is no tensor in a call."""

    key: str
    bias: bool
    reverse: bool
    states: int

    def kernels(self, x: Tensor) -> CellKernels:
        return kernels_of(self.key, x.dtype, x.device.type)


# --- the kernels ---------------------------------------------------------------------------------------------------


def _checked_forward(
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
    """A pass forward, of arguments that somebody may have made up."""
    kernels = checked_kernels(key, x, weights, bias)
    check_forward(kernels, bias, x, offsets, states, resets, weights)
    resets = None if resets is None else resets.contiguous()
    schedule = schedule_of(offsets, len(states[0]), reverse)
    output, finals, saved = plain.run_forward(kernels, bias, schedule, x, states, weights, resets, tape)
    return [output, *finals, *saved]


def _checked_backward(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    bias: bool,
    reverse: bool,
    output: Tensor,
    saved: list[Tensor],
    output_gradient: Tensor | None,
    state_gradients: Sequence[Tensor | None],
    wants_input: bool,
) -> list[Tensor]:
    kernels = checked_kernels(key, x, weights, bias)
    sizes = check_forward(kernels, bias, x, offsets, states, resets, weights)
    has_resets = resets is not None
    check_backward(kernels, sizes, x, states, has_resets, output, saved, output_gradient, state_gradients)
    resets = None if resets is None else resets.contiguous()
    output, saved = output.contiguous(), [each.contiguous() for each in saved]
    schedule = schedule_of(offsets, len(states[0]), reverse)
    arguments = (schedule, x, states, weights, resets, output, saved)
    dx, dstates, dweights = plain.run_backward(
        kernels, bias, *arguments, output_gradient, state_gradients, wants_input
    )
    # An operator returns tensors alone: at what was drawn, and nobody differentiates, zeros.
    given = [
        torch.zeros_like(weight, memory_format=torch.contiguous_format) if each is None else each
        for each, weight in zip(dweights, weights, strict=True)
    ]
    return [x.new_empty(0) if dx is None else dx, *dstates, *given]


# --- autograd ------------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operator: Operator,
        asked: CallAttributes,
        offsets: Tensor,
        resets: Tensor | None,
        x: Tensor,
        *others: Tensor,
    ) -> tuple[Tensor, ...]:
        key, bias, reverse, count = asked
        states, weights = list(others[:count]), list(others[count:])
        found = operator(key, x, offsets, states, resets, weights, bias, reverse, True)
        output, saved = found[0], found[1 + count :]
        ctx.asked, ctx.saved = asked, len(saved)
        ctx.seen = [(each.dtype, each.shape) for each in (x, *others)]
        # Rows that were copied for the caller may be written to as any copy may.
        ctx.reads_output = not is_plain(x) or not asked.kernels(x).pads(output)
        # What is kept has no gradients: as zeros they would be as large as it.
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*saved)
        ctx.save_for_backward(
            offsets, resets, output if ctx.reads_output else output.data, *saved, x, *others
        )
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        offsets, resets, output, *rest = ctx.saved_tensors
        saved, (x, *others) = rest[: ctx.saved], rest[ctx.saved :]
        asked, given = ctx.asked, list(gradients[: 1 + ctx.asked.states])
        if are_transformed(given):
            schedule = (asked.bias, asked.reverse, asked.states, offsets, resets)
            return None, None, None, None, *first_derivative(asked.kernels(x), *schedule, (x, *others), given)
        plain.check_unchanged((x, *others), ctx.seen)
        results = (output, *others[: asked.states])
        given = [
            torch.zeros_like(r) if g is None else in_memory(g) for r, g in zip(results, given, strict=True)
        ]
        call = (asked, offsets, resets, output, saved)
        if not is_plain(x):
            operator = torch.ops.cellwise.direction_backward.default
            return None, None, None, None, *_call_backward(operator, *call)(x, *others, *given)
        if torch.is_grad_enabled():
            return None, None, None, None, *_Backward.apply(_checked_backward, *call, x, *others, *given)
        wanted = ctx.needs_input_grad[4]
        dx, *rest = _call_backward(_checked_backward, *call, wanted)(x, *others, *given)
        return None, None, None, None, dx if wanted else None, *rest


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operator: Operator,
        asked: CallAttributes,
        offsets: Tensor,
        resets: Tensor | None,
        output: Tensor,
        saved: list[Tensor],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.asked = asked
        ctx.save_for_backward(offsets, resets, *tensors)
        return tuple(_call_backward(operator, asked, offsets, resets, output, saved)(*tensors))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        offsets, resets, *tensors = ctx.saved_tensors
        asked, kernels = ctx.asked, ctx.asked.kernels(tensors[0])
        # What was kept follows from x, states and weights: the derivative is taken through those.
        schedule = (asked.bias, asked.reverse, asked.states, offsets, resets)
        found = second_derivative(kernels, *schedule, tensors, gradients)
        return None, None, None, None, None, None, *found


def _call_backward(
    operator: Operator,
    asked: CallAttributes,
    offsets: Tensor,
    resets: Tensor | None,
    output: Tensor,
    saved: list[Tensor],
    wants_input: bool = True,
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
            output,
            saved,
            given[0],
            list(given[1:]),
            wants_input,
        )

    return call


# --- the operators -------------------------------------------------------------------------------------------------


def _below_autograd(operator: Any, kernel: Operator, x: Tensor, *others: Tensor) -> Operator:
    """What runs below autograd: in a finished program the kernel itself, since each call of an operator costs."""
    tensors = (x, *others)
    here = is_plain(x) and all(has_kernels(each.device) and lies_in_memory(each) for each in tensors)
    if here and not any(map(torch_internals.is_functional, tensors)):
        return kernel

    def call(*arguments: Any) -> list[Tensor]:
        with torch_internals.below_autograd():
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
    below = _below_autograd(torch.ops.cellwise.direction.default, _checked_forward, x, *states, *weights)
    bias, reverse, tape = rest
    tensors = (x, *states, *weights)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return below(key, x, offsets, states, resets, weights, *rest)
    found = _Forward.apply(below, CallAttributes(key, bias, reverse, len(states)), offsets, resets, *tensors)
    # A program that was traced without gradients, and asks for no tape, may be run with them.
    return list(found if tape else found[: 1 + len(states)])


def _backward_autograd(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    *rest: Any,
) -> list[Tensor]:
    bias, reverse, output, saved, output_gradient, state_gradients, _ = rest
    tensors = (x, *states, *weights, output_gradient, *state_gradients)
    operator = torch.ops.cellwise.direction_backward.default
    below = _below_autograd(operator, _checked_backward, *tensors, output, *saved)
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return below(key, x, offsets, states, resets, weights, *rest)
    asked = CallAttributes(key, bias, reverse, len(states))
    return list(_Backward.apply(below, asked, offsets, resets, output, saved, *tensors))


def _forward_shapes(
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
    kernels = checked_kernels(key, x, weights, bias)
    sizes = checked_sizes(kernels, bias, x, states, weights)
    found = [x.new_empty(x.shape[0], sizes.outputs * sizes.output), *map(torch.empty_like, states)]
    if tape:
        saved = saved_layout(kernels, sizes, resets is not None)
        found += [x.new_empty(x.shape[0], columns * width) for columns, width in saved.shapes.values()]
    return found


def _backward_shapes(
    key: str,
    x: Tensor,
    offsets: Tensor,
    states: list[Tensor],
    resets: Tensor | None,
    weights: list[Tensor],
    *rest: Any,
) -> list[Tensor]:
    like = (*([x] if rest[-1] else []), *states, *weights)
    found = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in like]
    return found if rest[-1] else [x.new_empty(0), *found]


class Implementation(NamedTuple):
    """What torch is told of an operator: the kernel, what it does with gradients, the shapes of what it returns."""

    kernel: Operator
    autograd: Operator
    shapes: Operator


OPERATORS = {
    "direction": Implementation(_checked_forward, _direction_autograd, _forward_shapes),
    "direction_backward": Implementation(_checked_backward, _backward_autograd, _backward_shapes),
}
