"""The two directions of a layer launched together, each on its share of the threads.

They want nothing of each other, and a single row cannot be shared among threads. One node of autograd stands for both,
so that their backward kernels run together too; everything else is as in two passes, one after the other.

What the directions give is put side by side by numpy, in one thread. Torch wakes threads of its own for more than
32,768 numbers, and those wait for more to do in a busy loop, for milliseconds, on the cores that the directions want.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise import torch_internals
from cellwise.backends.compiled.arriving import are_transformed
from cellwise.backends.compiled.backward_pass import BackwardCall, backward_pass
from cellwise.backends.compiled.compiler import KernelCompiler
from cellwise.backends.compiled.forward_pass import forward_pass
from cellwise.backends.compiled.plain import (
    PassCall,
    Told,
    check_unchanged,
    differentiated,
    in_memory,
    in_order,
    is_too_large,
    lengths_of,
    too_large,
)

Found = tuple[Tensor, list[Tensor], list[Tensor]]
Resets = Sequence[Tensor | None]


def _side_by_side(first: Tensor, second: Tensor) -> Tensor:
    """(N, 2 H) from two outputs (N, H)."""
    rows, width = first.shape
    found = first.new_empty(rows, 2 * width)
    for place, each in enumerate((first, second)):
        _numbers(found)[:, place * width : (place + 1) * width] = _numbers(each)
    return found


def _apart(joined: Tensor, compiler: KernelCompiler) -> list[Tensor]:
    """The halves of rows (N, 2 H), for this call alone."""
    rows, width = joined.shape[0], joined.shape[1] // 2
    found = [compiler.empty(rows, width, joined, True) for _ in range(2)]
    for place, each in enumerate(found):
        _numbers(each)[:] = _numbers(joined)[:, place * width : (place + 1) * width]
    return found


def _numbers(tensor: Tensor) -> np.ndarray:
    """As whole numbers of the same bytes: numpy has no bfloat16."""
    return tensor.detach().view(_WHOLE[tensor.element_size()]).numpy()


_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _run_forward(
    calls: Sequence[PassCall],
    resets: Resets,
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    weights: Sequence[Sequence[Tensor]],
    tape: bool,
) -> list[Found]:
    """What `run_forward` returns, of each direction; all but x is given for each."""
    kernels, bias, has_resets = calls[0].kernels, calls[0].bias, resets[0] is not None
    lengths = lengths_of(kernels, bias, x, states[0], weights[0])
    made = [forward_pass(kernels, bias, lengths, call.schedule, has_resets, tape, x.device) for call in calls]
    try:
        kernels.compiler.begin()
        begun = [
            each.begin(x, first, taken, marks, at_once=len(made))
            for each, first, taken, marks in zip(made, states, weights, resets, strict=True)
        ]
        kernels.compiler.launch(
            [(one.run, 0, each.schedule.steps) for one, each in zip(begun, made, strict=True)]
        )
        return [each.end(one) for one, each in zip(begun, made, strict=True)]
    except (MemoryError, RuntimeError) as error:
        if not is_too_large(error):
            raise
        raise too_large(kernels, bias, x, states[0], weights[0], has_resets, tape) from None


def infer_both(
    calls: Sequence[PassCall],
    resets: Resets,
    x: Tensor,
    states: Sequence[Sequence[Tensor]],
    weights: Sequence[Sequence[Tensor]],
) -> tuple[Tensor, ...]:
    """What `Both.apply` returns, where nothing needs a gradient; x (N, D)."""
    found = _run_forward(calls, resets, x, states, weights, False)
    output = _side_by_side(*[each for each, *_ in found])
    return output, *[final for _, finals, _ in found for final in finals]


def _parts_of(
    calls: Sequence[PassCall], others: Sequence[Tensor]
) -> tuple[list[Sequence[Tensor]], list[Sequence[Tensor]]]:
    """The states of each direction and its weights, from all that were given: none where states are zeros."""
    half = len(others) // len(calls)
    parts = [others[:half], others[half:]]
    counts = [0 if call.zeros else len(call.kernels.graph.states) for call in calls]
    states = [call.zeros or part[:count] for call, part, count in zip(calls, parts, counts, strict=True)]
    return states, [part[count:] for part, count in zip(parts, counts, strict=True)]


class Both(torch.autograd.Function):
    """`Both.apply(calls, resets, x, *states, *weights, *states, *weights)` -> (output, *final states of each).

    x (N, D) in any shape if it lies so in memory, the output (N, 2 H).
    """

    @staticmethod
    def forward(
        ctx: Any, calls: Sequence[PassCall], resets: Resets, x: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        states, weights = _parts_of(calls, others)
        ctx.calls, ctx.resets = calls, resets
        ctx.seen = [(each.dtype, each.shape) for each in (x, *others)]
        ctx.hooked = torch_internals.has_saved_tensors_hooks()
        ctx.set_materialize_grads(False)
        found = _run_forward(calls, resets, x.reshape(-1, x.shape[-1]), states, weights, True)
        kept = []
        for output, _, saved in found:
            # Rows that were copied for the caller may be written to as any copy may.
            kept += [output.data if calls[0].kernels.pads(output) else output, *saved]
        ctx.save_for_backward(x, *others, *kept)
        output = _side_by_side(*[each for each, *_ in found])
        return output, *[final for _, finals, _ in found for final in finals]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        x, *rest = ctx.saved_tensors
        calls, end = ctx.calls, len(ctx.seen) - 1
        others, saved = rest[:end], rest[end:]
        check_unchanged((x, *others), ctx.seen)
        states, weights = _parts_of(calls, others)
        count, size = len(states[0]), len(saved) // 2
        compiler = calls[0].kernels.compiler
        at_outputs: Sequence[Any] = (None, None)
        is_plain = not (are_transformed(gradients) or torch.is_grad_enabled())
        if is_plain:
            compiler.begin()
        if gradients[0] is not None:
            given = gradients[0]
            at_outputs = _apart(in_memory(given), compiler) if is_plain else given.chunk(2, dim=-1)
        passes = []
        for place, (call, at_output) in enumerate(zip(calls, at_outputs, strict=True)):
            output, *kept = saved[place * size : (place + 1) * size]
            arriving = (at_output, *gradients[1 + place * count : 1 + (place + 1) * count])
            told = Told(call, ctx.resets[place], ctx.hooked, ctx.needs_input_grad[2])
            inner = [*states[place], *weights[place]]
            passes.append((told, output, x.reshape(-1, x.shape[-1]), inner, kept, arriving))
        found = _run_backward(passes) if is_plain else [differentiated(*each) for each in passes]
        at_x = [each for each, *_ in found if each is not None]
        at_others = [
            each for call, (_, *rest) in zip(calls, found, strict=True) for each in rest[len(call.zeros) :]
        ]
        return None, None, _sum(at_x, is_plain).reshape(x.shape) if at_x else None, *at_others


def _sum(gradients: Sequence[Tensor], is_plain: bool) -> Tensor:
    first, second = gradients
    if is_plain and first.dtype in (torch.float32, torch.float64):
        np.add(first.numpy(), second.numpy(), out=first.numpy())
        return first
    return first + second


def _run_backward(passes: Sequence[tuple[Any, ...]]) -> list[Sequence[Tensor | None]]:
    """The gradients at x (N, D), states and weights, of each direction; the compiler knows that a call began."""
    begun: list[BackwardCall] = []
    compiler = passes[0][0].call.kernels.compiler
    for told, *rest in passes:
        call = told.call
        x, states, weights, resets, output, saved, at_output, at_states, wants_input = in_order(told, *rest)
        lengths = lengths_of(call.kernels, call.bias, x, states, weights)
        made = backward_pass(call.kernels, call.bias, lengths, call.schedule, resets is not None, x.device)
        begun.append(BackwardCall(made, x, states, weights, resets, output, saved))
        begun[-1].begin(at_output, at_states, wants_input, at_once=len(passes))
    # Spans of the two begin at other steps where rows have different lengths, but are about as many.
    for number, spans in enumerate(itertools.zip_longest(*[each.made.spans for each in begun])):
        here = [(each, span) for each, span in zip(begun, spans, strict=True) if span is not None]
        compiler.launch([(each.launched, first, end) for each, (first, end, _) in here])
        for each, _ in here:
            each.after(number)
    ends = [each.end() for each in begun]
    return [(dx, *dstates, *dweights) for dx, dstates, dweights in ends]
