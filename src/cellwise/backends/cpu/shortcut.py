"""The short way of plain calls to the kernels: one node of autograd for each layer and direction, all prepared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.base import PlainBatch, Result, Shortcut, Stack
from cellwise.backends.cpu import operator
from cellwise.backends.cpu.direction import Direction
from cellwise.backends.cpu.operator import Asked
from cellwise.backends.cpu.prepared import PreparedPass, Saved, prepare


class _Run(torch.autograd.Function):
    """x, the states that were given and the weights to the output and the final states."""

    @staticmethod
    def forward(ctx: Any, run: PreparedPass, asked: Asked, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        count = len(others) - len(run.sizing.stems)
        output, finals, saved = run.training.run(x, others[:count], others[count:])
        ctx.run, ctx.asked, ctx.count = run, asked, count
        ctx.x_shape, ctx.seen = x.shape, [each.shape for each in others]
        # What hooks bring back in the backward pass is theirs, and so must be checked.
        ctx.hooked = operator.saved_by_hooks()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *others, saved.output, *saved.kept)
        return output, *finals

    @staticmethod
    def backward(ctx: Any, *given: Any) -> tuple[Any, ...]:
        run, count, size = ctx.run, ctx.count, 1 + len(ctx.seen)
        saved = ctx.saved_tensors
        x, others, output, kept = saved[0], saved[1:size], saved[size], saved[size + 1 :]
        dtype = run.sizing.engine.dtype
        for each, shape in zip(others, ctx.seen, strict=True):
            if each.shape != shape or each.dtype is not dtype:
                raise operator.other_data()
        if x.shape != ctx.x_shape or x.dtype is not dtype:
            raise operator.other_data()
        if ctx.hooked or torch.is_grad_enabled() or not _are_readable(given) or not operator.is_plain(x):
            return None, None, *_in_general(ctx, x, others, Saved(kept, output), given)
        x = x.contiguous()
        others = [each.contiguous() for each in others]
        wanted = ctx.needs_input_grad[2:]
        found = run.backward.run(x, others[:count], others[count:], Saved(kept, output), given, wanted)
        return None, None, *found


def _requires_grad(x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> bool:
    return any([each.requires_grad for each in (*weights, x, *states)])  # noqa: C419  quicker than a generator


def _are_readable(gradients: Sequence[Tensor | None]) -> bool:
    """Whether all are numbers in memory."""
    for each in gradients:
        if each is not None and (type(each) is not Tensor or each.is_neg() or each._is_zerotensor()):
            return False
    return not operator.are_transformed(gradients)


def _in_general(
    ctx: Any, x: Tensor, others: Sequence[Tensor], saved: Saved, given: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients by the way of all calls: to be differentiated again, of many at once, by hooks, of subclasses."""
    run, count = ctx.run, ctx.count
    lengths, steps = run.sizing.lengths, run.sizing.steps
    rows, batch, hidden = steps.walk.rows, steps.batch, lengths[1]
    flat = x.reshape(rows, lengths[0])
    states = [each.reshape(batch, hidden) for each in others[:count]]
    weights = others[count:]
    if not count:
        states = [flat.new_zeros(batch, hidden) for _ in range(ctx.asked.states)]
    output = flat.new_zeros(rows, hidden) if saved.output is None else saved.output
    at_output, *at_states = given
    gradients = [None if at_output is None else at_output.reshape(rows, hidden)]
    gradients += [None if each is None else each.reshape(batch, hidden) for each in at_states]
    found = operator.gradients_of(
        ctx.asked,
        ctx.hooked,
        ctx.needs_input_grad[2],
        (steps.offsets, None, output, saved.kept),
        (flat, *states, *weights),
        gradients,
    )
    dx, at_first, at_weights = found[0], found[1 : 1 + len(states)], found[1 + len(states) :]
    dx = None if dx is None else dx.reshape(x.shape)
    at_first = [None if each is None else each.reshape(1, batch, hidden) for each in at_first[:count]]
    return [dx, *at_first, *at_weights]


class CpuShortcut(Shortcut):
    """A stack of layers, prepared."""

    reads_memory = True

    def __init__(
        self, stack: Stack, prepared: Direction, batch: PlainBatch, passes: list[PreparedPass]
    ) -> None:
        self._stack, self._batch, self._passes = stack, batch, passes
        count = len(stack.graph.states)
        self._asked = [Asked(prepared.key, stack.bias, reverse, count) for reverse in (False, True)]
        self._stems = len(prepared.stems)
        self._alone = len(passes) == 1
        self._turned = batch.batch_first and batch.sizes is None

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        dropout: float,
        training: bool,
        sizes: Tensor | None,
    ) -> Result:
        if self._turned:
            x = x.transpose(0, 1)
        if not x.is_contiguous():
            x = x.contiguous()
        states = [state if state.is_contiguous() else state.contiguous() for state in states]
        records = torch.is_grad_enabled()
        if self._alone:
            output, finals = self._direction(0, x, states, weights, records)
        else:
            output, finals = self._stacked(x, states, weights, records, dropout if training else 0.0)
        return (output.transpose(0, 1) if self._turned else output), finals

    def _direction(
        self, number: int, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], records: bool
    ) -> Result:
        run = self._passes[number]
        if records and _requires_grad(x, states, weights):
            asked = self._asked[number % self._stack.directions]
            output, *finals = _Run.apply(run, asked, x, *states, *weights)
        else:
            output, finals, _ = run.inference.run(x, states, weights)
        return output, tuple(finals)

    def _stacked(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], records: bool, dropout: float
    ) -> Result:
        stack, finals = self._stack, []
        for layer in range(stack.num_layers):
            outputs = []
            for direction in range(stack.directions):
                number = layer * stack.directions + direction
                mine = [state[number : number + 1] for state in states]
                taken = weights[number * self._stems : (number + 1) * self._stems]
                output, final = self._direction(number, x, mine, taken, records)
                outputs.append(output)
                finals.append(final)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
            if dropout and layer < stack.num_layers - 1:
                x = torch.nn.functional.dropout(x, dropout)
        return x, tuple([torch.cat(each) for each in zip(*finals, strict=True)])


def shortcut(stack: Stack, prepared: Direction, batch: PlainBatch) -> CpuShortcut | None:
    """The short way for a stack; None if one of its layers cannot be prepared, or need not be."""
    sizes = np.full(batch.steps, batch.batch, np.int64) if batch.sizes is None else batch.sizes
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]).tobytes()
    passes = []
    for layer in range(stack.num_layers):
        below = stack.input_size if layer == 0 else stack.hidden_size * stack.directions
        for reverse in (False, True)[: stack.directions]:
            lengths = (below, stack.hidden_size, 0)
            engine, dense = prepared.engine(batch.dtype), batch.sizes is None
            made = prepare(
                engine, prepared.stems, lengths, offsets, batch.batch, reverse, dense, torch.get_num_threads()
            )
            if made is None:
                return None
            passes.append(made)
    return CpuShortcut(stack, prepared, batch, passes)
