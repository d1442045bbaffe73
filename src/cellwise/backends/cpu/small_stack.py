"""A stack of layers of few rows in one call: each layer is a chain that goes block by block of its steps
(`small_calls.py`), and a lane of a wave (`wave.py`), so that two threads are in two layers at once.

The gradient at a layer's output is made by the layer above, block by block from the last step on. Gradients of weights
are the last task of a lane.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.compiler import SmallCall
from cellwise.backends.compiled.forward_pass import ForwardPass
from cellwise.backends.compiled.gradients import weight_gradient_layout
from cellwise.backends.compiled.scratch import SCRATCH
from cellwise.backends.compiled.stack import SmallStack
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.backends.cpu.blocks import second_level_cache
from cellwise.backends.cpu.few_rows import gates_of
from cellwise.backends.cpu.small_backward import SmallBackward
from cellwise.backends.cpu.small_beside import restarted
from cellwise.backends.cpu.small_calls import SmallForward, has_chain, is_of_chains
from cellwise.backends.cpu.small_run import SmallRun, Spans, template
from cellwise.backends.cpu.threads import in_wave, is_for_many
from cellwise.backends.cpu.wave import Wave

_ALIGNED = 64
_address = Tensor.data_ptr
_empty_like = torch.empty_like
# Rows of a block: less would be no product of many rows; and blocks, more of which gain nothing.
_ROWS, _BLOCKS = 8, 12
# Valid steps of all sequences: more were not measured.
_MOST_ROWS = 2**13
# Multiply-adds of a layer from which on two threads are worth it. How often the weights of a layer may fill the second
# cache; the bytes of gradients at gates of all steps, where some are wanted; and where not, the multiply-adds. Beyond,
# two threads share each layer as quickly, or more so (docs/decisions/0081).
_WORTH_SHARING = 1_000_000
_FILLED, _MOST_BYTES, _MOST_WORK = 1.5, 2**23, 60_000_000


class _Lanes:
    """The runs of a stack's layers, the one that begins first first, and the wave that they make. One call uses it at a
    time.

    extra: bytes of scratch memory that they share.
    """

    def __init__(self, runs: Sequence[SmallRun], threads: int, extra: int = 0) -> None:
        self.runs, self.starts = runs, []
        self.bytes = -(-extra // _ALIGNED) * _ALIGNED
        for run in runs:
            self.starts.append(self.bytes)
            self.bytes += run.bytes
        self.wave = Wave([run.chains for run in runs], threads)
        self._totals = [total for run in runs for total in run.totals]

    def settle(self) -> Any:
        """Take scratch memory: the block, at whose beginning is what they share."""
        block = SCRATCH.fresh(self.bytes)
        for run, start in zip(self.runs, self.starts, strict=True):
            run.settle(block.start + start)
        return block

    def run(self) -> None:
        """All of it, once the addresses of a call's tensors are written."""
        for total in self._totals:
            total.fill(0)
        in_wave(self.wave)


class _Idle:
    """What is used by one call at a time; Python threads that call at once have one each."""

    def __init__(self, make: Callable[[], _Lanes]) -> None:
        self._make = make
        self._idle: deque[_Lanes] = deque()

    def take(self) -> _Lanes:
        try:
            return self._idle.pop()
        except IndexError:
            return self._make()

    def give_back(self, lanes: _Lanes) -> None:
        self._idle.append(lanes)


class _Rows:
    """States, or their gradients, of all layers, (L, B, size) each: where those of a layer begin."""

    def __init__(self, layers: int, batch: int, sizes: Sequence[int], dtype: torch.dtype) -> None:
        shapes = [(layers, batch, size) for size in sizes]
        self.templates = [template(shape, dtype) for shape in shapes]
        self._bytes = [batch * size * dtype.itemsize for size in sizes]
        with torch.inference_mode(False):
            self.zeros = [torch.zeros(shape, dtype=dtype, device="cpu") for shape in shapes]

    def of(self, tensors: Sequence[Tensor], layer: int) -> list[int]:
        return [_address(each) + layer * size for each, size in zip(tensors, self._bytes, strict=True)]


class CpuSmallStack(SmallStack):
    """Each of its ways is made when it is first needed."""

    def __init__(self, calls: Sequence[SmallCall], threads: int, is_masked: bool) -> None:
        self._calls, self._threads, self._is_masked = calls, threads, is_masked
        first = calls[0]
        self._layers, self._stems = len(calls), len(first.kernels.stems[first.bias])
        _, hidden, projected = first.lengths
        sizes = [projected or hidden, *[hidden] * (len(first.kernels.graph.states) - 1)]
        self._rows = _Rows(self._layers, first.schedule.batch, sizes, first.kernels.dtype)
        self._device = torch.device("cpu")

    def _forward(self, tape: bool) -> tuple[list[SmallForward], _Idle]:
        passes = []
        for number, call in enumerate(self._calls):
            given = (
                call.kernels,
                call.bias,
                call.lengths,
                call.schedule,
                call.has_resets,
                tape,
                self._device,
            )
            kernels: Any = call.kernels
            kernel = kernels.training if tape else kernels.inference
            is_masked = self._is_masked and number < self._layers - 1
            spans = blocks(call.schedule, self._threads)
            passes.append(SmallForward(ForwardPass(*given), call, kernel, tape, spans, is_masked))
        return passes, _Idle(lambda: _Lanes([each.runs.make() for each in passes], self._threads))

    @cached_property
    def _infers(self) -> tuple[list[SmallForward], _Idle]:
        return self._forward(False)

    @cached_property
    def _records(self) -> tuple[list[SmallForward], _Idle]:
        return self._forward(True)

    @cached_property
    def _differentiates(self) -> tuple[list[SmallBackward], _Idle]:
        """From the last layer to the first."""
        passes = []
        for number, call in reversed(list(enumerate(self._calls))):
            given = (call.kernels, call.bias, call.lengths, call.schedule, call.has_resets, self._device)
            kernels: Any = call.kernels
            made = BackwardPass(*given)
            spans = blocks(made.backwards, self._threads)
            passes.append(
                SmallBackward(made, call, kernels.backward, spans, number > 0, self._is_masked and number > 0)
            )
        shared = (self._layers - 1) * self._passed_bytes
        return passes, _Idle(lambda: _Lanes([each.runs.make() for each in passes], self._threads, shared))

    @property
    def _passed_bytes(self) -> int:
        """Of the gradient that a layer makes for the one below."""
        call = self._calls[-1]
        return call.schedule.rows * call.lengths[0] * call.kernels.dtype.itemsize

    def _begun(self, states: Sequence[Tensor], resets: Sequence[Tensor]) -> Sequence[Tensor]:
        """The states that the first steps begin with; zeros if none were given."""
        if not self._calls[0].has_states:
            return self._rows.zeros
        return restarted(states, resets[0]) if resets else states

    def _run(
        self,
        way: tuple[list[SmallForward], _Idle],
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        masks: Sequence[Tensor],
        resets: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor], list[list[Tensor]]]:
        """The output, the final states, and of each layer what it was given and what is kept."""
        passes, idle = way
        lanes, states = idle.take(), self._begun(states, resets)
        lanes.settle()
        finals = list(map(_empty_like, self._rows.templates))
        taken, marks = list(map(_address, weights)), list(map(_address, resets))
        output, kept = x, []
        held = []  # until all of it has run
        for layer, (each, run) in enumerate(zip(passes, lanes.runs, strict=True)):
            own = taken[layer * self._stems : (layer + 1) * self._stems]
            first, last = self._rows.of(states, layer), self._rows.of(finals, layer)
            mask = masks[layer] if layer < len(masks) else None
            dropped = None if mask is None else _empty_like(mask)
            more = [] if mask is None or dropped is None else [_address(dropped), _address(mask)]
            given = output
            output, whole, _, saved = each.begin(run, _address(given), first, own, last, *marks, *more)
            kept.append([given, whole, *saved])
            held.append(output)
            output = output if dropped is None else dropped
        lanes.run()
        idle.give_back(lanes)
        return output, finals, kept

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        output, finals, _ = self._run(self._infers, x, states, weights, (), resets)
        return output, finals

    def record(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        masks: Sequence[Tensor],
        *resets: Tensor,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        output, finals, kept = self._run(self._records, x, states, weights, masks, resets)
        _, *rest = [each for part in kept for each in part]  # all but x, which the caller has
        return output, finals, rest

    def differentiate(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        kept: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        wants_input: bool,
        masks: Sequence[Tensor],
        *resets: Tensor,
    ) -> tuple[Tensor | None, ...]:
        passes, idle = self._differentiates
        lanes, has_states = idle.take(), self._calls[0].has_states
        block, begun = lanes.settle(), self._begun(states, resets)
        at_weights = [
            torch.empty_like(each) if whole else torch.zeros_like(each)
            for each, whole in zip(weights, passes[0].covered * self._layers, strict=True)
        ]
        at_states = list(map(_empty_like, self._rows.templates)) if has_states else []
        at_output, *at_finals = [
            zeros if each is None else each.contiguous()
            for each, zeros in zip(gradients, [passes[0].zeros[0], *self._rows.zeros], strict=True)
        ]
        taken, made = list(map(_address, weights)), list(map(_address, at_weights))
        marks, seen = list(map(_address, resets)), [_address(x), *map(_address, kept)]
        size, given = len(seen) // self._layers, _address(at_output)
        for place, run in enumerate(lanes.runs):
            layer = self._layers - 1 - place
            own = slice(layer * self._stems, (layer + 1) * self._stems)
            first, *saved = seen[layer * size : (layer + 1) * size]
            words = [first, *self._rows.of(begun, layer), *taken[own], *saved, given]
            words += [*self._rows.of(at_finals, layer), *made[own]]
            words += self._rows.of(at_states, layer) if has_states else []
            words += marks
            if layer:
                given = block.start + place * self._passed_bytes
                words.append(given)
                words += map(_address, masks[layer - 1 : layer])
            run.write(*words)
        lanes.run()
        dx = None
        if wants_input:
            start, own_weights = lanes.starts[-1], weights[: self._stems]
            dx = passes[-1].at_input(lanes.runs[-1], block, x, own_weights, start)
        idle.give_back(lanes)
        return dx, *at_states, *at_weights


def blocks(schedule: TimeSchedule, threads: int) -> Spans:
    """The blocks of steps of a dense batch; one, where there is nobody to share them."""
    rows = max(_ROWS, -(-schedule.rows // _BLOCKS)) if threads > 1 else schedule.rows
    at = schedule.offsets
    return [(first, end, slice(int(at[first]), int(at[end]))) for first, end in schedule.spans(rows)]


def small_stack(calls: Sequence[SmallCall], records: bool, is_masked: bool) -> CpuSmallStack | None:
    """The way for a stack whose layers have calls of these shapes, if there is one that is quicker than others."""
    first = calls[0]
    threads = threads_at_once(first.kernels, [call.lengths for call in calls], first.schedule, records)
    return CpuSmallStack(calls, threads, is_masked) if threads else None


def threads_at_once(
    kernels: CellKernels, lengths: Sequence[tuple[int, int, int]], schedule: TimeSchedule, records: bool
) -> int:
    """How many threads are in the layers of a stack at once; 0 where these go one by one.

    Args:
        lengths: of each layer D, H and P.
    """
    graph, element, rows = kernels.graph, kernels.dtype.itemsize, schedule.rows
    if (
        not 0 < rows <= _MOST_ROWS
        or not schedule.is_dense
        or graph.given
        or graph.others
        or not graph.input_gates
    ):
        return 0
    _, hidden, projected = lengths[0]
    if not (has_chain(kernels, rows, hidden) or (is_of_chains(kernels) and not projected)):
        return 0
    # Of the larger ones of two layers.
    width = max(each for each, *_ in lengths)
    weights = hidden * (len(graph.input_gates) * width + len(graph.state_gates) * (projected or hidden))
    work = rows * (weights + 20 * hidden)
    if weights * element > _FILLED * second_level_cache():
        return 0
    if records:
        # A layer must have a gradient for the one below.
        has_inputs = bool(weight_gradient_layout(kernels, hidden, torch.device("cpu")).inputs)
        if not has_inputs or rows * gates_of(graph) * hidden * element > _MOST_BYTES:
            return 0
    elif work > _MOST_WORK:
        return 0
    threads = torch.get_num_threads()
    if threads > 2 and is_for_many(work, schedule.batch, records):
        return 0  # so many share rows, and only two were measured
    is_worth_it = work >= _WORTH_SHARING and len(schedule.offsets) > 2
    return min(threads, len(lengths)) if is_worth_it else 1
