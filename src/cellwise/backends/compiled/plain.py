"""The short way of a call that nobody watches but autograd: no operator of torch's, whose dispatcher costs more than a
small kernel, and no text of a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter

from cellwise import torch_internals
from cellwise.backends.compiled.arriving import are_plain, are_transformed
from cellwise.backends.compiled.backward_pass import backward_pass
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.checks import check_backward
from cellwise.backends.compiled.compiler import SmallPass
from cellwise.backends.compiled.double_backward import first_derivative, second_derivative
from cellwise.backends.compiled.forward_pass import forward_pass
from cellwise.backends.compiled.handed_out import Writes, copy_from_now_on, is_free, is_shared, stand_in
from cellwise.backends.compiled.saved import PROJECTION, saved_layout, sizes_of
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.errors import InputError, OutOfMemoryError


def run_forward(
    kernels: CellKernels,
    bias: bool,
    schedule: TimeSchedule,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    resets: Tensor | None,
    tape: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Outputs (N, H), final states (B, H), and with a tape what is kept for the backward pass."""
    lengths = lengths_of(kernels, bias, x, states, weights)
    made = forward_pass(kernels, bias, lengths, schedule, resets is not None, tape, x.device)
    try:
        return made.run(x, states, weights, resets)
    except (MemoryError, RuntimeError) as error:
        if not is_too_large(error):
            raise
        raise too_large(kernels, bias, x, states, weights, resets is not None, tape) from None


def run_backward(
    kernels: CellKernels,
    bias: bool,
    schedule: TimeSchedule,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    resets: Tensor | None,
    output: Tensor,
    saved: Sequence[Tensor],
    output_gradient: Tensor | None,
    state_gradients: Sequence[Tensor | None],
    wants_input: bool,
) -> tuple[Tensor | None, list[Tensor], list[Tensor | None]]:
    """The gradients at x, states and weights; `schedule` is that of the forward pass."""
    lengths = lengths_of(kernels, bias, x, states, weights)
    made = backward_pass(kernels, bias, lengths, schedule, resets is not None, x.device)
    return made.run(x, states, weights, resets, output, saved, output_gradient, state_gradients, wants_input)


def lengths_of(
    kernels: CellKernels, bias: bool, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[int, int, int]:
    """D, H and P."""
    if kernels.projected:
        projected, hidden = weights[kernels.stems[bias].index(PROJECTION)].shape
        return x.shape[1], hidden, projected
    return x.shape[1], states[0].shape[1], 0


def is_too_large(error: Exception) -> bool:
    """Whether there was no memory for a call."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def too_large(
    kernels: CellKernels,
    bias: bool,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_resets: bool,
    tape: bool,
) -> OutOfMemoryError:
    sizes = sizes_of(kernels, bias, x, states, weights)
    row = sizes.padded_output
    if tape:
        row += sum(
            columns * width for columns, width in saved_layout(kernels, sizes, has_resets).shapes.values()
        )
    asked = len(x) * row * x.element_size() / 2**30
    told = (
        f"{kernels.graph.name} with {len(x)} steps of {sizes.hidden} units asks for {asked:.1f} GiB of memory"
    )
    told += ", most of it to keep for the backward pass" if tape else ""
    remedy = "Take shorter sequences or smaller batches"
    if tape and not kernels.recompute:
        remedy = (
            "Set layer.recompute = True, which keeps the states alone and computes the rest again, or t"
            + remedy[1:]
        )
    return OutOfMemoryError(f"{told}, and there is not so much. {remedy}.")


# --- autograd ------------------------------------------------------------------------------------------------------


_NOTHING = (None,) * 2  # the gradients at what is no tensor of numbers, or has none


@dataclass(frozen=True, eq=False)
class PassCall:
    """What of a layer pass is no tensor.

    given: the shape of an output that is handed to the caller, who may write to it, with final states (1, B, H); None
    of one that goes to the next layer, (N, H), with final states (B, H).
    small: the way for small calls, if this is one.
    zeros: the states of a layer that was given none; they are no tensors of the call then.
    """

    kernels: CellKernels
    bias: bool
    schedule: TimeSchedule
    given: tuple[int, ...] | None = None
    small: SmallPass | None = None
    zeros: tuple[Tensor, ...] = ()


class Forward(torch.autograd.Function):
    """`Forward.apply(call, resets, x, *states, *weights)` -> (output, *final states); x (N, D), in any shape if it
    lies so in memory.
    """

    @staticmethod
    def forward(
        ctx: Any, call: PassCall, resets: Tensor | None, x: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        kernels, zeros = call.kernels, call.zeros
        count = 0 if zeros else len(kernels.graph.states)
        ctx.call, ctx.resets = call, resets
        ctx.seen = [(each.dtype, each.shape) for each in (x, *others)]
        # What hooks bring back in the backward pass is theirs, and so must be checked.
        ctx.hooked = torch_internals.has_saved_tensors_hooks()
        ctx.set_materialize_grads(False)
        ctx.writes = None
        if call.small is not None and call.small.records:
            given = (x, zeros or others[:count], others[count:])
            output, kept, finals, saved = call.small.record(*given, *_those(resets))
            ctx.save_for_backward(kept, x, *others, *saved)
            shared = kept is output and call.small.shares_output
            ctx.reads_output = kept is output and not shared
            if shared:  # as below
                output = output.data
                ctx.writes = Writes(output)
            return output, *finals
        rows, (states, weights) = x.reshape(-1, x.shape[-1]), _states_and_weights(call, others)
        output, finals, saved = run_forward(
            kernels, call.bias, call.schedule, rows, states, weights, resets, True
        )
        free = is_free(kernels, output, resets is not None)
        # Hooks may hold, or free, what they are given, whatever happens to the output.
        shared = not (free or ctx.hooked) and is_shared(kernels, rows, output)
        ctx.reads_output = not (free or shared) and call.given is None
        ctx.save_for_backward(stand_in(output) if free else output, x, *others, *saved)
        if shared or free:
            # With a count of its own, or torch would forbid what is done to it; and no view, which torch forbids too.
            output = output.data
        elif call.given is not None:
            output = output.clone()
        if call.given is not None:
            output = output.resize_(call.given)
            finals = [final.unsqueeze_(0) for final in finals]
        if shared:
            ctx.writes = Writes(output)
        return output, *finals

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        output, x, *rest = ctx.saved_tensors
        call, end = ctx.call, len(ctx.seen) - 1
        others, saved = rest[:end], rest[end:]
        check_unchanged((x, *others), ctx.seen)
        wants_input, count = ctx.needs_input_grad[2], 0 if call.zeros else len(gradients) - 1
        if ctx.writes is not None and ctx.writes.are_some and not are_transformed(gradients):
            output = _computed_again(call, ctx.resets, output, x, others)
        small = call.small
        if small is not None and small.differentiates and not ctx.hooked and are_plain(gradients):
            states, weights = call.zeros or others[:count], others[count:]
            arguments = (x, states, weights, output, saved, gradients, wants_input)
            return *_NOTHING, *small.differentiate(*arguments, *_those(ctx.resets))
        # Nobody wants a gradient at states of zero.
        states, weights = _states_and_weights(call, others)
        inner = [*states, *weights]
        told = Told(call, ctx.resets, ctx.hooked, wants_input)
        dx, *found = differentiated(told, output, x.reshape(-1, x.shape[-1]), inner, saved, gradients)
        found = [dx, *found[len(call.zeros) :]]
        shapes = [each.shape for each in (x, *others)]
        return *_NOTHING, *[
            each if each is None or each.shape == shape else each.reshape(shape)
            for each, shape in zip(found, shapes, strict=True)
        ]


def _computed_again(
    call: PassCall, resets: Tensor | None, output: Tensor, x: Tensor, others: Sequence[Tensor]
) -> Tensor:
    """What a forward pass from x, states and weights left as its output (N, H), which was written to since."""
    kernels, rows = call.kernels, x.reshape(-1, x.shape[-1])
    states, weights = _states_and_weights(call, others)
    copy_from_now_on(kernels, rows, output)
    with torch.no_grad():
        return run_forward(kernels, call.bias, call.schedule, rows, states, weights, resets, False)[0]


def _states_and_weights(
    call: PassCall, others: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """States (B, H), zeros of a layer that was given none, and weights, of what a node was given behind x."""
    if call.zeros:
        return call.zeros, others
    count = len(call.kernels.graph.states)
    return [each.reshape(each.shape[-2:]) for each in others[:count]], others[count:]


def _those(resets: Tensor | None) -> tuple[Tensor, ...]:
    """What a plan is given of them."""
    return () if resets is None else (resets,)


class Told(NamedTuple):
    """What a backward pass is told. hooked: hooks brought back what was kept, which so must be checked."""

    call: PassCall
    resets: Tensor | None
    hooked: bool
    wants_input: bool


def differentiated(
    told: Told,
    output: Tensor,
    x: Tensor,
    others: list[Tensor],
    saved: Sequence[Tensor],
    gradients: Sequence[Any],
) -> Sequence[Tensor | None]:
    """The gradients at x (N, D), states and weights, whatever the gradients at what came out are."""
    call, resets = told.call, told.resets
    kernels, bias, schedule = call.kernels, call.bias, call.schedule
    count = len(kernels.graph.states)
    # Those at what was handed to the caller, in the shape of what a layer pass computed.
    gradients = tuple(
        [
            each if each is None or each.shape == of.shape else each.reshape(of.shape)
            for each, of in zip(gradients, (output, *others), strict=False)
        ]
    )
    if are_transformed(gradients):
        run = (kernels, bias, schedule.backwards, count, schedule.offsets_tensor, resets)
        return first_derivative(*run, (x, *others), gradients)
    if torch.is_grad_enabled():
        results = (output, *others[:count])
        given = [
            torch.zeros_like(r) if g is None else in_memory(g)
            for r, g in zip(results, gradients, strict=True)
        ]
        found: Sequence[Tensor | None] = Backward.apply(
            kernels, bias, schedule, resets, output, list(saved), x, *others, *given
        )
        return found
    dx, dstates, dweights = run_backward(
        kernels, bias, schedule, *in_order(told, output, x, others, saved, gradients)
    )
    return dx, *dstates, *dweights


def in_order(
    told: Told,
    output: Tensor,
    x: Tensor,
    others: Sequence[Tensor],
    saved: Sequence[Tensor],
    gradients: Sequence[Any],
) -> tuple[Any, ...]:
    """What `BackwardPass.run` takes, of gradients that kernels are given."""
    kernels, bias = told.call.kernels, told.call.bias
    at_output, *at_states = [None if each is None else in_memory(each) for each in gradients]
    count = len(at_states)
    states, weights = others[:count], others[count:]
    if told.hooked:
        sizes = sizes_of(kernels, bias, x, states, weights)
        has_resets = told.resets is not None
        check_backward(kernels, sizes, x, states, has_resets, output, saved, at_output, at_states)
        output, saved = output.contiguous(), [each.contiguous() for each in saved]
    return x, states, weights, told.resets, output, saved, at_output, at_states, told.wants_input


class Backward(torch.autograd.Function):
    """The kernels' derivative, where it is differentiated itself."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: CellKernels,
        bias: bool,
        schedule: TimeSchedule,
        resets: Tensor | None,
        output: Tensor,
        saved: list[Tensor],
        x: Tensor,
        *tensors: Tensor,
    ) -> tuple[Tensor | None, ...]:
        count = len(kernels.graph.states)
        states, weights, given = tensors[:count], tensors[count : -1 - count], tensors[-1 - count :]
        ctx.call = kernels, bias, schedule, resets
        ctx.save_for_backward(x, *tensors)
        call = (kernels, bias, schedule, x, states, weights, resets, output, saved)
        dx, dstates, dweights = run_backward(*call, given[0], given[1:], True)
        return dx, *dstates, *dweights

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        kernels, bias, schedule, resets = ctx.call
        # What was kept follows from x, states and weights: the derivative is taken through those.
        call = (kernels, bias, schedule.backwards, len(kernels.graph.states), schedule.offsets_tensor, resets)
        found = second_derivative(*call, ctx.saved_tensors, gradients)
        return None, None, None, None, None, None, *found


def check_unchanged(tensors: Sequence[Tensor], seen: Sequence[Any]) -> None:
    """Raise InputError if a tensor that was saved has another dtype or shape than it had."""
    if [(each.dtype, each.shape) for each in tensors] != seen:
        raise InputError(
            "An input, state or weight that the backward pass needs was given other data (through .data), of "
            "another shape or dtype than in the forward pass."
        )


# --- what is plain -------------------------------------------------------------------------------------------------


def is_plain(x: Tensor) -> bool:
    """Whether nobody but autograd watches the operators that run."""
    return (
        not torch.compiler.is_compiling()
        and lies_in_memory(x)
        and not torch_internals.num_dispatch_modes()
        and torch_internals.tracing_state() is None
    )


def lie_in_memory(tensors: Iterable[Tensor]) -> bool:
    """Whether all of them do (`lies_in_memory`)."""
    for each in tensors:
        kind = type(each)
        if kind is not Parameter and (kind is not Tensor or each.is_neg()):
            return False
    return True


def lies_in_memory(tensor: Tensor) -> bool:
    """Whether a tensor has its numbers at its address: no subclass that keeps them elsewhere.

    Nor one that is yet to be negated, as the imaginary part of a conjugate is.
    """
    return lie_in_memory((tensor,))


def in_memory(gradient: Tensor) -> Tensor:
    """A gradient as a kernel can read it: autograd has zeros without memory, and numbers that are yet to be negated."""
    return (
        torch.zeros_like(gradient)
        if torch_internals.is_zero_without_memory(gradient)
        else gradient.resolve_neg()
    )
