"""The short path of plain batches through a stack: schedules and shapes are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.base import LayerSpec, PlainBatch, Result, Shortcut, joined
from cellwise.backends.compiled.both import Both, infer_both
from cellwise.backends.compiled.compiler import KernelCompiler, SmallCall
from cellwise.backends.compiled.layer_pass import LayerPass
from cellwise.backends.compiled.plain import Forward, PassCall, run_forward
from cellwise.backends.compiled.stack import Stack, StackCall
from cellwise.backends.compiled.time_schedule import TimeSchedule, even_schedule, schedule_at
from cellwise.plan import state_sizes
from cellwise.torch_internals import apply_alone, has_saved_tensors_hooks

_apply, _apply_stack = apply_alone(Forward), apply_alone(Stack)


@lru_cache(maxsize=64)
def _zeros(
    compiler: KernelCompiler, batch: int, size: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """States that nobody gave. They are only read, and nobody gets them."""
    return compiler.zeros((batch, size), dtype, device)


class CompiledShortcut(Shortcut):
    """A stack of layer passes on batches of one form."""

    reads_memory = True

    def __init__(self, stack: LayerSpec, made: LayerPass, batch: PlainBatch) -> None:
        self._stack, self._made, self._form = stack, made, batch
        self._schedules = [_schedule_of(batch, reverse) for reverse in (False, True)[: stack.directions]]
        parts = stack.graph.input_parts
        # Parts of the input are known when a layer's turn comes; they stand among what is given beside x.
        self._parts = (len(parts), made.stems.index(parts[0])) if parts else None
        self._stems, self._alone = len(made.stems) - len(parts), stack.num_layers * stack.directions == 1
        self._sizes = state_sizes(stack.graph, stack.hidden_size, stack.proj_size)
        self._is_dense = batch.sizes is None
        # A single row, or step, lies in memory as it should, whichever comes first.
        self._turned = batch.batch_first and self._is_dense and batch.steps > 1 and batch.batch > 1
        self._rows, self._batch, self._dtype = self._schedules[0].rows, batch.batch, batch.dtype
        self._lead: tuple[int, ...] = (batch.steps, batch.batch) if self._is_dense else (self._rows,)
        if batch.batch_first and self._is_dense and not self._turned:
            self._lead = (batch.batch, batch.steps)
        # What the caller gets of a single layer pass comes from it as it is wanted.
        self._outputs = 1 + len(stack.graph.others)
        self._given = (*self._lead, self._outputs * self._sizes[0]) if self._alone else None
        self._whole: dict[tuple[bool, bool, bool, torch.device], StackCall | None] = {}
        self._calls: dict[tuple[int, bool, torch.device], PassCall] = {}

    def _call(self, number: int, has_states: bool, device: torch.device) -> PassCall:
        """What is known beforehand of one layer and direction."""
        made, parts = self._made, [self._stack.hidden_size] * len(self._stack.graph.input_parts)
        layer, direction = divmod(number, self._stack.directions)
        lengths, schedule = self._lengths(layer), self._schedules[direction]
        given, beside = (made.kernels, made.bias), (*self._form.beside, *parts)
        shape = SmallCall(
            *given,
            lengths,
            schedule,
            self._given,
            has_states,
            device,
            self._form.resets,
            beside,
            not self._is_dense,
        )
        small = made.kernels.compiler.small_pass(shape)
        if has_states:
            return PassCall(*given, schedule, self._given, small)
        zeros = [
            _zeros(made.kernels.compiler, self._batch, size, self._dtype, device) for size in self._sizes
        ]
        return PassCall(*given, schedule, self._given, small, tuple(zeros))

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        dropout: float,
        training: bool,
        sizes: Tensor | None,
        resets: Tensor | None = None,
    ) -> Result:
        if self._turned:
            x = x.transpose(0, 1)
        if not x.is_contiguous():
            x = x.contiguous()
        records = torch.is_grad_enabled()
        if self._alone:
            output, *finals = self._direction(0, x, states, weights, records, resets)
        else:
            share = dropout if training else 0.0
            output, finals = self._stacked(x, states, weights, records, share, resets)
        return output.transpose(0, 1) if self._turned else output, tuple(finals)

    def _call_of(self, number: int, states: Sequence[Tensor], x: Tensor) -> PassCall:
        key = (number, bool(states), x.device)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._call(*key)
        return call

    def _direction(
        self,
        number: int,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        records: bool,
        resets: Tensor | None,
    ) -> Sequence[Tensor]:
        call = self._call_of(number, states, x)
        if self._parts is not None:
            weights = self._with_parts(x, weights)
        if call.small is not None:
            if states:
                states = [each if each.is_contiguous() else each.contiguous() for each in states]
        elif self._alone:
            states = [each[0] for each in states]
        if records:
            for each in (*weights, x, *states):
                if each.requires_grad:
                    found: Sequence[Tensor] = _apply(call, resets, x, *states, *weights)
                    return found
        taken = call.zeros or states
        if call.small is not None:
            if call.small.infers:
                given = () if resets is None else (resets,)
                output, _, finals, _ = call.small.infer(x, taken, weights, *given)
                return output, *finals
            taken = [each.view(each.shape[-2:]) for each in taken]
        rows = x.reshape(self._rows, x.shape[-1])
        output, finals, _ = run_forward(
            call.kernels, call.bias, call.schedule, rows, taken, weights, resets, False
        )
        if self._given is None:
            return output, *finals
        return output.resize_(self._given), *[final.unsqueeze_(0) for final in finals]

    def _stacked(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        records: bool,
        dropout: float,
        resets: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        together = self._together(x, states, weights, records, dropout, resets)
        if together is not None:
            output, *ends = together
            return output, ends
        return self._by_layers(x, states, weights, records, dropout, (), resets)

    def _together(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        records: bool,
        dropout: float,
        resets: Tensor | None,
    ) -> Sequence[Tensor] | None:
        """All layers at once, the output and the final states; None where they are to run one by one."""
        if self._stack.directions == 2:
            return None
        wanted = [each.requires_grad for each in weights] if records else []
        records = any(wanted) or (records and any(each.requires_grad for each in (x, *states)))
        # Where some weights are fixed the layers below need no tape; hooks see what each layer keeps.
        if records and (not all(wanted) or has_saved_tensors_hooks()):
            return None
        if dropout and (not records or dropout == 1):
            return None
        call = self._stack_call(bool(states), records, dropout > 0, x.device)
        if call is None:
            return None
        states = [each if each.is_contiguous() else each.contiguous() for each in states]
        if records:
            count = self._stack.num_layers - 1 if dropout else 0
            masks = [_mask(x, (self._rows, self._sizes[0]), dropout) for _ in range(count)]
            given = (call, resets, masks, x)
            recorded: Sequence[Tensor] = _apply_stack(*given, *states, *weights)
            return recorded
        output, finals = call.small.infer(x, states, weights, *(() if resets is None else (resets,)))
        return output, *finals

    def _stack_call(
        self, has_states: bool, records: bool, is_masked: bool, device: torch.device
    ) -> StackCall | None:
        key = (has_states, records, is_masked, device)
        if key not in self._whole:
            self._whole[key] = self._made_whole(*key)
        return self._whole[key]

    def _made_whole(
        self, has_states: bool, records: bool, is_masked: bool, device: torch.device
    ) -> StackCall | None:
        stack, made = self._stack, self._made
        if self._parts is not None or not self._is_dense:
            return None
        given = (*self._lead, self._outputs * self._sizes[0])
        calls = [
            SmallCall(
                made.kernels,
                made.bias,
                self._lengths(layer),
                self._schedules[0],
                given if layer == stack.num_layers - 1 else None,
                has_states,
                device,
                self._form.resets,
                self._form.beside,
            )
            for layer in range(stack.num_layers)
        ]
        small = made.kernels.compiler.small_stack(calls, records, is_masked)
        if small is None:
            return None
        return StackCall(small, self._one_by_one, len(self._sizes) if has_states else 0)

    def _one_by_one(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        masks: Sequence[Tensor],
        resets: Tensor | None,
    ) -> Sequence[Tensor]:
        """The same, for derivatives of derivatives."""
        output, finals = self._by_layers(x, states, weights, True, 0.0, masks, resets)
        return output, *finals

    def _by_layers(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        records: bool,
        dropout: float,
        masks: Sequence[Tensor],
        resets: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        stack, found = self._stack, []
        marks = (resets, self._backwards(resets))
        for layer in range(stack.num_layers):
            both = self._both(layer, x, states, weights, records, marks) if stack.directions == 2 else None
            if both is None:
                passes = self._in_turn(layer, x, states, weights, records, marks)
                found += [finals for _, *finals in passes]
                x = joined([each for each, *_ in passes], self._outputs, layer == stack.num_layers - 1)
            else:
                x, *finals = both
                found += [finals[: len(finals) // 2], finals[len(finals) // 2 :]]
            if layer < len(masks):
                x = x * masks[layer]
            if dropout and layer < stack.num_layers - 1:
                x = torch.nn.functional.dropout(x, dropout)
        if getattr(x.grad_fn, "reads_output", False):
            x = x.clone()
        x = x.view(*self._lead, x.shape[1])
        return x, [torch.stack(each) for each in zip(*found, strict=True)]

    def _backwards(self, resets: Tensor | None) -> Tensor | None:
        """The marks of the reverse direction, which before a sequence's first step has nothing to be cut off from."""
        if resets is None or self._stack.directions == 1:
            return None
        found = resets.clone()
        found[: int(self._schedules[0].offsets[1])] = 0
        return found

    def _in_turn(
        self,
        layer: int,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        records: bool,
        marks: Sequence[Tensor | None],
    ) -> list[Sequence[Tensor]]:
        """The output and the final states of each direction, the second perhaps beside the first."""
        directions, found = self._stack.directions, []
        beside = self._beside(layer, x, states, weights, records) if directions == 2 else None
        for direction in range(directions):
            number = layer * directions + direction
            first, taken = self._of(number, states, weights)
            with beside if direction and beside is not None else nullcontext():
                found.append(self._direction(number, x, first, taken, records, marks[direction]))
        return found

    def _both(
        self,
        layer: int,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        records: bool,
        marks: Sequence[Tensor | None],
    ) -> Sequence[Tensor] | None:
        """Both directions at once, the output and the final states of each; None where they are to run in turn."""
        each = [self._of(2 * layer + direction, states, weights) for direction in range(2)]
        tensors = (x, *(tensor for pair in each for part in pair for tensor in part))
        records = records and any(tensor.requires_grad for tensor in tensors)
        if not self._at_once(layer, records):
            return None
        calls = [self._call_of(2 * layer + direction, states, x) for direction in range(2)]
        firsts, taken = [first for first, _ in each], [self._with_parts(x, own) for _, own in each]
        others = [*firsts[0], *taken[0], *firsts[1], *taken[1]]
        if records:
            recorded: Sequence[Tensor] = Both.apply(calls, marks, x, *others)
            return recorded
        given = [call.zeros or first for call, first in zip(calls, firsts, strict=True)]
        return infer_both(calls, marks, x.reshape(self._rows, x.shape[-1]), given, taken)

    def _of(
        self, number: int, states: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> tuple[list[Tensor], Sequence[Tensor]]:
        """The first states and the weights of one layer and direction."""
        return [state[number] for state in states], weights[number * self._stems : (number + 1) * self._stems]

    def _with_parts(self, x: Tensor, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Weights of a layer, among which are the parts of its input that it takes as they are."""
        if self._parts is None:
            return weights
        count, place = self._parts
        parts = x.reshape(self._rows, x.shape[-1]).chunk(count, dim=-1)
        return [*weights[:place], *parts, *weights[place:]]

    def _at_once(self, layer: int, records: bool) -> bool:
        """Whether both directions of a layer are to be launched together: asked each time, as threads are."""
        compiler = self._made.kernels.compiler
        return compiler.runs_at_once(self._made.kernels, self._lengths(layer), self._schedules[0], records)

    def _lengths(self, layer: int) -> tuple[int, int, int]:
        """D, H and P of a layer."""
        stack = self._stack
        width = (stack.proj_size or stack.hidden_size) * stack.directions if layer else stack.input_size
        return width, stack.hidden_size, stack.proj_size

    def _beside(
        self, layer: int, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], records: bool
    ) -> AbstractContextManager[None] | None:
        """Where the second direction of a layer may run beside the first."""
        smalls = [self._call_of(2 * layer + direction, states, x).small for direction in range(2)]
        passes = [each for each in smalls if each is not None]
        tensors = (x, *states, *weights[(2 * layer + 1) * self._stems : (2 * layer + 2) * self._stems])
        records = records and any(each.requires_grad for each in tensors)
        return self._made.kernels.compiler.fork(passes, records, tensors) if len(passes) == 2 else None


def _mask(like: Tensor, shape: tuple[int, int], dropout: float) -> Tensor:
    """What torch's dropout multiplies by, drawn as it draws it."""
    return like.new_empty(shape).bernoulli_(1 - dropout).div_(1 - dropout)


def _schedule_of(batch: PlainBatch, reverse: bool) -> TimeSchedule:
    if batch.sizes is None:
        return even_schedule(batch.steps, batch.batch, reverse)
    offsets = np.cumsum((0, *batch.sizes), dtype=np.int64)
    return schedule_at(offsets.tobytes(), batch.batch, reverse)
