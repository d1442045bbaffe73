"""One step at a time, with everything at addresses that never change: a graph of the device's, replayed at each step.

A step reads one of two sets of states and writes the other, so there are two graphs: of what a call of one step
launches, in the same order, on memory of the stepper's own. Weights are read where the layer has them, or packed within
the graph: a step sees whatever was written to them before it (docs/decisions/0082).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.base import LayerSpec, Stepper
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.forward_pass import OUTPUT, ForwardPass
from cellwise.backends.compiled.time_schedule import even_schedule
from cellwise.backends.cuda.launch import CudaRun
from cellwise.backends.cuda.machine import Machine
from cellwise.backends.cuda.numbers import number_of

# Steps of a kind that are launched one by one before they are recorded: the first compile kernels, and let cuBLAS load
# its own, which nothing that is recorded may do; and who makes a few steps never pays for a recording.
_LAUNCHED = 2
_MOST = 16  # graphs that are kept: of eight queues of the device, two each

# What decides what makes a step: the queue, None in a graph of the caller's; the precision of products; the turn.
Key = tuple[int | None, str, int]


class CudaStepper(Stepper):
    """The layers of a stack for a fixed batch, with states of its own, zero at first."""

    def __init__(
        self,
        kernels: CellKernels,
        stack: LayerSpec,
        weights: Sequence[Sequence[Tensor]],
        batch: int,
        watched: Sequence[Tensor],
        machine: Machine,
    ) -> None:
        first, graph, size = watched[0], kernels.graph, stack.proj_size or stack.hidden_size
        self._kept = [each.detach() for each in watched]  # so that the memory stays theirs
        self._machine, self._batch, self._dtype = machine, batch, kernels.dtype
        self._device, self._index = first.device, first.get_device()
        self._outputs = 1 + len(graph.others)
        with torch.inference_mode(False), torch.no_grad():  # kept for steps outside of it
            like = torch.empty((), dtype=kernels.dtype, device=first.device)
            self._x = like.new_zeros(batch, stack.input_size)
            self._beside = {
                name: like.new_zeros(batch, stack.hidden_size)
                for name in graph.asked_inputs
                if name not in graph.input_parts
            }
            self._layers: list[_Layer] = []
            for each in weights:
                width = size if self._layers else stack.input_size
                self._layers.append(_Layer(kernels, stack, [w.detach() for w in each], batch, width, like))
            result = like.new_zeros(batch, self._outputs * size)
        last = self._layers[-1]
        # Rows with padding are copied to where they lie without.
        self._is_cut = last.output(0).shape != result.shape
        self._results = [result if self._is_cut else last.output(turn) for turn in (0, 1)]
        self._given: Sequence[Any] = [None] * len(self._beside)
        self._holds: list[Any] = [None] * len(self._beside)  # numbers that stand beside x by now
        places = {each.data_ptr() for each in watched}
        self.reads_all = all(w.data_ptr() in places for own in weights for w in own)
        self._works = [partial(self._work, turn) for turn in (0, 1)]
        self._turn = 0
        self._launched: dict[Key, int] = {}
        self._recorded: dict[Key, Callable[[], None]] = {}
        self._order = machine.order()
        self._order.begin(self._tensors)
        self._order.end()

    def _tensors(self) -> list[Tensor]:
        """All memory that steps read and write, that of graphs apart."""
        own = [each for layer in self._layers for each in layer.tensors]
        return [self._x, *self._beside.values(), *self._results, *own, *self._kept]

    def step(self, x: Tensor, y: Tensor) -> bool | None:
        if x.get_device() != self._index:
            return None
        queue, machine, turn = self._begin(), self._machine, self._turn
        key = queue, number_of(self._dtype).product, turn
        if queue is None and not any(key[1] == product for _, product, _ in self._launched):
            return None  # nothing of it has run yet, not even in cuBLAS
        try:
            machine.check()
            machine.copy(self._x, x)
            if self._beside:
                self._put_beside()
            (self._recorded.get(key) or self._next(key))()
            machine.copy(y, self._results[turn])
            if self.is_recorded:
                for layer in self._layers:
                    layer.go_back(turn)
            else:
                self._turn = 1 - turn
        finally:
            self._order.end()
        return True

    def _begin(self) -> int | None:
        """The queue of now. A graph of the caller's knows memory: its replays begin with states that never move."""
        queue = self._order.begin(self._tensors)
        self.is_recorded |= queue is None
        return queue

    def _next(self, key: Key) -> Callable[[], None]:
        """What makes a step of a kind that is not recorded yet, nor to be."""
        if key[0] is None:
            return self._works[key[2]]
        work, count = self._works[key[2]], self._launched.get(key, 0)
        if count < _LAUNCHED:
            self._launched[key] = count + 1
            return work
        if len(self._recorded) >= _MOST:
            self._recorded.clear()
        self._recorded[key] = self._machine.record(work)
        return self._recorded[key]

    def _work(self, turn: int) -> None:
        """A step from the states of one turn to those of the other, all that it launches."""
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            x = self._x
            for layer in self._layers:
                x = layer.step(turn, x, self._beside)
            if self._is_cut:
                size = (self._batch, self._outputs, -1)
                cut, rows = self._results[turn].view(size), self._layers[-1].output(turn).view(size)
                cut.copy_(rows[..., : cut.shape[2]])

    def give(self, beside: Sequence[Any]) -> None:
        self._given = beside

    def _put_beside(self) -> None:
        for place, (rows, value) in enumerate(zip(self._beside.values(), self._given, strict=True)):
            if isinstance(value, Tensor):
                rows.copy_(value.reshape(self._batch, -1))
                self._holds[place] = None
            elif self.is_recorded or value != self._holds[place]:  # replays change it unseen
                rows.fill_(value)
                self._holds[place] = value

    @property
    def states(self) -> tuple[Tensor, ...]:
        """Copies, (L, B, size) for each state."""
        self._begin()
        try:
            found = [layer.true_states(self._turn) for layer in self._layers]
            return tuple(torch.stack(each) for each in zip(*found, strict=True))
        finally:
            self._order.end()

    @states.setter
    def states(self, given: tuple[Tensor, ...]) -> None:
        self._begin()
        try:
            for place, state in enumerate(given):
                for layer, own in zip(self._layers, state, strict=True):
                    layer.true_states(self._turn)[place].copy_(own)
        finally:
            self._order.end()


class _Layer:
    """One layer's kernel, bound at each launch to memory that stays: two sets of states, and its output."""

    def __init__(
        self,
        kernels: CellKernels,
        stack: LayerSpec,
        weights: Sequence[Tensor],
        batch: int,
        width: int,
        like: Tensor,
    ) -> None:
        lengths = width, stack.hidden_size, stack.proj_size
        options = even_schedule(1, batch, False), False, False, like.device
        self._made = made = ForwardPass(kernels, stack.bias, lengths, *options)
        run = kernels.inference.open(made.shape)
        assert isinstance(run, CudaRun)
        run.keeps_memory = True
        self._run, self._weights, self._graph = run, weights, kernels.graph
        self._states = [[like.new_zeros(batch, each) for each in made.widths] for _ in (0, 1)]
        self._sizes = [made.sizes.of_state(place)[0] for place in range(len(made.widths))]
        count = made.sizes.outputs * made.sizes.padded_output
        # The output may be the first state after the step, written once.
        self._output = None if made.histories[0] == OUTPUT else like.new_zeros(batch, count)

    @property
    def tensors(self) -> list[Tensor]:
        output = [] if self._output is None else [self._output]
        return [*self._states[0], *self._states[1], *output, *self._run.memory, *self._weights]

    def output(self, turn: int) -> Tensor:
        """(B, outputs * width) where a step of this turn leaves its outputs."""
        return self._states[1 - turn][0] if self._output is None else self._output

    def true_states(self, turn: int) -> list[Tensor]:
        """(B, size) each, where a step of this turn begins."""
        return [each[:, :size] for each, size in zip(self._states[turn], self._sizes, strict=True)]

    def go_back(self, turn: int) -> None:
        """Put the states after a step of this turn where it began."""
        for to, state in zip(self._states[turn], self._states[1 - turn], strict=True):
            to.copy_(state)

    def step(self, turn: int, x: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
        """Launch it on x (B, D); returns what a layer above takes."""
        made, parts = self._made, self._graph.input_parts
        given = {**beside, **dict(zip(parts, x.chunk(max(1, len(parts)), dim=-1), strict=False))}
        weights = [w.contiguous() for w in (*self._weights, *(given[name] for name in self._graph.given))]
        output = self.output(turn)
        rows = [] if made.beside is None else made.beside.rows(weights)
        tensors = [*rows, x, output]
        after = list(self._states[1 - turn])
        after[0] = after[0] if made.histories[0] is None else output
        self._run.bind([tensors[place] for place in made.given], self._states[turn], after, weights, None)
        self._run.launch(0, 1)
        self._run.release()
        size = made.sizes.output
        return output if output.shape[1] == size else output[:, :size].contiguous()
