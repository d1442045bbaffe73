"""A stack of layers of few rows in one call: each layer is a chain that goes block by block of its steps (`small_calls.py`),
and a lane of a wave (`wave.py`), so that two threads are in two layers at once.

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
from cellwise.backends.compiled.compiler import SmallCall, SmallStack
from cellwise.backends.compiled.forward_pass import ForwardPass
from cellwise.backends.compiled.scratch import SCRATCH
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.backends.cpu.small_backward import SmallBackward
from cellwise.backends.cpu.small_beside import restarted
from cellwise.backends.cpu.small_calls import SmallForward, has_chain
from cellwise.backends.cpu.small_run import SmallRun, Spans, template
from cellwise.backends.cpu.threads import in_wave
from cellwise.backends.cpu.wave import Wave

_ALIGNED = 64
_address = Tensor.data_ptr
_empty_like = torch.empty_like
# Rows of a block: less would be no product of many rows; and blocks, more of which gain nothing.
_ROWS, _BLOCKS = 8, 12


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

    def __init__(self, calls: Sequence[SmallCall], threads: int) -> None:
        self._calls, self._threads = calls, threads
        first = calls[0]
        self._layers, self._stems = len(calls), len(first.kernels.stems[first.bias])
        _, hidden, projected = first.lengths
        sizes = [projected or hidden, *[hidden] * (len(first.kernels.graph.states) - 1)]
        self._rows = _Rows(self._layers, first.schedule.batch, sizes, first.kernels.dtype)
        self._device = torch.device("cpu")

    def _forward(self, tape: bool) -> tuple[list[SmallForward], _Idle]:
        passes = []
        for call in self._calls:
            given = (call.kernels, call.bias, call.lengths, call.schedule, call.has_resets, tape, self._device)
            kernels: Any = call.kernels
            kernel = kernels.training if tape else kernels.inference
            passes.append(SmallForward(ForwardPass(*given), call, kernel, tape, blocks(call.schedule)))
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
            spans = blocks(made.backwards)
            passes.append(SmallBackward(made, call, kernels.backward, spans, passes_on=number > 0))
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
        resets: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        passes, idle = way
        lanes, states = idle.take(), self._begun(states, resets)
        lanes.settle()
        finals = list(map(_empty_like, self._rows.templates))
        taken, marks = list(map(_address, weights)), list(map(_address, resets))
        output, kept = x, []
        for layer, (each, run) in enumerate(zip(passes, lanes.runs, strict=True)):
            own = taken[layer * self._stems : (layer + 1) * self._stems]
            first, last = self._rows.of(states, layer), self._rows.of(finals, layer)
            output, whole, _, saved = each.begin(run, _address(output), first, own, last, *marks)
            kept += [output, whole, *saved]
        lanes.run()
        idle.give_back(lanes)
        return output, finals, kept

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        output, finals, _ = self._run(self._infers, x, states, weights, resets)
        return output, finals

    def record(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        output, finals, kept = self._run(self._records, x, states, weights, resets)
        # The output of the last layer is the caller's, who may write to it.
        size = len(kept) // self._layers
        return output, finals, [*kept[:-size], *kept[1 - size :]]

    def differentiate(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        kept: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        wants_input: bool,
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
        arriving = [
            zeros if each is None else each.contiguous()
            for each, zeros in zip(gradients, [passes[0].zeros[0], *self._rows.zeros], strict=True)
        ]
        at_output, at_finals = arriving[0], arriving[1:]
        taken, made = list(map(_address, weights)), list(map(_address, at_weights))
        marks, size = list(map(_address, resets)), (len(kept) + 1) // self._layers
        outputs = [x, *[kept[layer * size] for layer in range(self._layers - 1)]]
        given = _address(at_output)
        for place, run in enumerate(lanes.runs):
            layer = self._layers - 1 - place
            own = slice(layer * self._stems, (layer + 1) * self._stems)
            # Of the last layer the output itself is not among them.
            first = layer * size + (layer < self._layers - 1)
            words = [
                _address(outputs[layer]),
                *self._rows.of(begun, layer),
                *taken[own],
                *map(_address, kept[first : (layer + 1) * size - (layer == self._layers - 1)]),
                given,
                *self._rows.of(at_finals, layer),
                *made[own],
            ]
            words += self._rows.of(at_states, layer) if has_states else []
            words += marks
            if layer:
                given = block.start + place * self._passed_bytes
                words.append(given)
            run.write(*words)
        lanes.run()
        dx = None
        if wants_input:
            start, own_weights = lanes.starts[-1], weights[: self._stems]
            dx = passes[-1].at_input(lanes.runs[-1], block, x, own_weights, start)
        idle.give_back(lanes)
        return dx, *at_states, *at_weights


def blocks(schedule: TimeSchedule) -> Spans:
    """The blocks of steps of a dense batch."""
    rows = max(_ROWS, -(-schedule.rows // _BLOCKS))
    at = schedule.offsets
    return [(first, end, slice(int(at[first]), int(at[end]))) for first, end in schedule.spans(rows)]


def small_stack(calls: Sequence[SmallCall]) -> CpuSmallStack | None:
    """The way for a stack whose layers have calls of these shapes, if all have few rows."""
    graph, schedule = calls[0].kernels.graph, calls[0].schedule
    if not schedule.is_dense or graph.given or graph.others or not graph.input_gates:
        return None
    if not all(map(has_chain, calls)):
        return None
    return CpuSmallStack(calls, min(len(calls), torch.get_num_threads()))
