"""One layer in one direction, forward. What depends on the shape of a call alone is worked out once for all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cellwise.backends.compiled.beside import Beside
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.compiler import (
    Carried,
    CompiledKernel,
    KernelRun,
    RunShape,
    given_buffers,
)
from cellwise.backends.compiled.rows import in_rows, without_padding
from cellwise.backends.compiled.saved import history_of, make_sizes, output_is_history, saved_layout
from cellwise.backends.compiled.time_schedule import TimeSchedule

# The last of a call's tensors, which follow what is kept and what is given beside x.
X, OUTPUT = -2, -1


class Runs:
    """The runs of a kernel for one shape. Python threads that call at once take one each."""

    def __init__(self, kernel: CompiledKernel, shape: RunShape) -> None:
        self._kernel, self._shape = kernel, shape
        self._idle: deque[KernelRun] = deque()

    def take(self, at_once: int = 1) -> KernelRun:
        """A run, which is to be launched with others, so many together."""
        try:
            run = self._idle.pop()
        except IndexError:
            run = self._kernel.open(self._shape)
        run.at_once = at_once
        return run

    def give_back(self, run: KernelRun) -> None:
        run.release()
        self._idle.append(run)


class Begun(NamedTuple):
    """A forward pass that is yet to be launched. held: tensors that must live until it was."""

    run: KernelRun
    output: Tensor
    saved: list[Tensor]
    histories: list[Tensor]
    initial: Sequence[Tensor]
    held: tuple[Tensor, ...]


class ForwardPass:
    """Runs a layer pass from x (N, D), states (B, H) each and weights in the order of the layer's parameters."""

    def __init__(
        self,
        kernels: CellKernels,
        bias: bool,
        lengths: tuple[int, int, int],
        schedule: TimeSchedule,
        has_resets: bool,
        tape: bool,
        device: torch.device,
    ) -> None:
        self.compiler, self.schedule, self.sizes = kernels.compiler, schedule, make_sizes(kernels, *lengths)
        graph, sizes = kernels.graph, self.sizes
        kernel = kernels.training if tape else kernels.inference
        layout = saved_layout(kernels, sizes, has_resets).shapes if tape else {}
        self.keeps = tape
        names = [name for name in layout if name != "output"]
        self.made = [columns * width for name, (columns, width) in layout.items() if name != "output"]
        # The outputs in whole rows are kept as they are, in their place among the others.
        self.output_place = list(layout).index("output") if "output" in layout else None
        stems = kernels.stems[bias]
        self.beside = Beside(kernels, stems, sizes) if graph.given else None
        names += [] if self.beside is None else self.beside.buffers
        places = {"x": X, "output": OUTPUT} | {name: place for place, name in enumerate(names)}
        self.given = [places[buffer.name] for buffer in given_buffers(kernel.program)]
        # Where the states of all steps go; None where nobody wants them.
        self.histories = [places.get(history_of(name)) for name in graph.states]
        if output_is_history(graph, has_resets):
            self.histories[0] = OUTPUT
        self.widths = [sizes.of_state(place)[1] for place in range(len(graph.states))]
        # After a single step the states after it are all that its buffer holds.
        single = schedule.steps == 1 and schedule.is_dense
        self.are_finals = [
            single and history is None and sizes.of_state(place)[0] == self.widths[place]
            for place, history in enumerate(self.histories)
        ]
        self._zeroes_first = has_resets and not schedule.backwards
        carried = tuple(Carried.PAIR if each is None else Carried.HISTORY for each in self.histories)
        self.shape = RunShape(sizes, schedule, stems, carried, has_resets, device)
        self._runs = Runs(kernel, self.shape)

    def run(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], resets: Tensor | None
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Outputs (N, H), final states (B, H), and with a tape what is kept, in the order of `saved_layout`."""
        self.compiler.begin()
        begun = self.begin(x, states, weights, resets)
        begun.run.launch(0, self.schedule.steps)
        return self.end(begun)

    def begin(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        resets: Tensor | None,
        at_once: int = 1,
    ) -> Begun:
        """Make the call's tensors, and bind a run that is to be launched with others, so many together."""
        compiler, schedule, sizes, rows = self.compiler, self.schedule, self.sizes, x.shape[0]
        x = x.contiguous()
        width = sizes.outputs * sizes.padded_output
        # With a tape it is kept, and the caller has a copy.
        output = compiler.empty(rows, width, x, False) if self.keeps else x.new_empty((rows, width))
        saved = [compiler.empty(rows, width, x, False) for width in self.made]
        beside = [] if self.beside is None else self.beside.rows(weights)
        tensors = [*saved, *beside, x, output]
        initial = first_states(states, resets, schedule) if self._zeroes_first else states
        firsts = [in_rows(state, width) for state, width in zip(initial, self.widths, strict=True)]
        histories = [
            tensors[place]
            if place is not None
            else x.new_empty((schedule.batch, width))
            if is_final
            else compiler.empty(2 * schedule.batch, width, x, True)
            for place, width, is_final in zip(self.histories, self.widths, self.are_finals, strict=True)
        ]
        run = self._runs.take(at_once)
        run.bind([tensors[place] for place in self.given], firsts, histories, weights, resets)
        return Begun(run, output, saved, histories, initial, (*tensors, *firsts))

    def end(self, begun: Begun) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """What `run` returns, of a run that was launched."""
        schedule, sizes, output, saved = self.schedule, self.sizes, begun.output, begun.saved
        self._runs.give_back(begun.run)
        finals = [
            history if is_final else schedule.finals(history, state, place is None)
            for history, is_final, state, place in zip(
                begun.histories, self.are_finals, begun.initial, self.histories, strict=True
            )
        ]
        if schedule.rows < len(output):
            output[schedule.rows :] = 0
        given = output
        if sizes.output != sizes.padded_output:
            # A copy even of a single row, which lies as it should: operators that torch traces share no memory.
            given = without_padding(output, sizes.outputs, sizes.output)
        if self.output_place is not None:
            saved.insert(self.output_place, output)
        return given, finals, saved


@lru_cache(maxsize=64)
def forward_pass(
    kernels: CellKernels,
    bias: bool,
    lengths: tuple[int, int, int],
    schedule: TimeSchedule,
    has_resets: bool,
    tape: bool,
    device: torch.device,
) -> ForwardPass:
    """The one for calls of this shape: `lengths` are D, H and P."""
    return ForwardPass(kernels, bias, lengths, schedule, has_resets, tape, device)


def first_states(states: Sequence[Tensor], resets: Tensor | None, schedule: TimeSchedule) -> list[Tensor]:
    """The states before each row's first step of a schedule that goes forward: zero where that step is marked."""
    if resets is None or schedule.backwards:
        return [state.contiguous() for state in states]
    size = int(schedule.offsets[1]) if schedule.steps else 0
    reset = torch.zeros(schedule.batch, 1, dtype=torch.bool, device=resets.device)
    reset[:size, 0] = resets[:size].bool()
    return [state.masked_fill(reset, 0) for state in states]
