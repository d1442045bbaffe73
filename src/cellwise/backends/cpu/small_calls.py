"""Calls that compute little, where what surrounds a kernel takes longer than the kernel.

The same kernels on the same arrays as `compiled.forward_pass` and `backward_pass`, for batches of few rows in one
thread; backward for dense ones. All that follows from the shape is at a fixed place beforehand: pointers, sizes, the
jobs for gradients of weights and copies. A call makes its tensors, writes down where they begin, and enters one chain
of compiled functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.compiler import SmallCall, SmallPass
from cellwise.backends.compiled.forward_pass import OUTPUT, ForwardPass, X, first_states
from cellwise.backends.compiled.scratch import POOL
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.backends.cpu.by_units import is_worth_it
from cellwise.backends.cpu.copy_rows import copy_rows
from cellwise.backends.cpu.few_rows import MOST_RAGGED, MOST_RAGGED_BYTES, gates_of, is_small
from cellwise.backends.cpu.masks import multiply
from cellwise.backends.cpu.small_backward import SmallBackward
from cellwise.backends.cpu.small_beside import GivenBeside, restarted
from cellwise.backends.cpu.small_jobs import Count, Jobs, Masks, WholeRows
from cellwise.backends.cpu.small_products import small_products
from cellwise.backends.cpu.small_run import (
    SmallRun,
    SmallRuns,
    Spans,
    Stages,
    carried_places,
    own_places,
    template,
    words_of,
)
from cellwise.backends.cpu.threads import is_for_many
from cellwise.plan.forward import forward_program

if TYPE_CHECKING:
    from cellwise.backends.compiled.cell_kernels import CellKernels
    from cellwise.backends.cpu.compiler import Kernel

_RESETS = ("resets",)
MASKED = ("output times mask", "mask")
_SMALL = 2**16  # bytes of a tensor that the C library has at hand
_empty_like = torch.empty_like
_address = Tensor.data_ptr
_CPU = torch.device("cpu")


class SmallForward:
    """A forward pass, as `ForwardPass` runs it: what comes out has the shapes that the caller is given.

    Args:
        spans: of a layer that goes block by block of its steps, beside others of a stack (`small_stack.py`).
        is_masked: and whose output the next layer is given times a mask.
        counted: how many rows there are, where each call says that (`small_ragged.py`). The kernel is the one to take.
        shares: whether the caller is given the very output that is kept.
    """

    def __init__(
        self,
        made: ForwardPass,
        call: SmallCall,
        kernel: Kernel,
        tape: bool,
        spans: Spans | None = None,
        is_masked: bool = False,
        counted: Count | None = None,
        shares: bool = False,
    ) -> None:
        given, kernel = call.given, kernel if counted else kernel.for_shape(made.shape)
        sizes, dtype, self._counted = made.sizes, kernel.dtype, counted
        batch, outputs = made.schedule.batch, made.sizes.outputs
        rows = counted.most if counted else made.schedule.rows
        self._pass, self._width = made, sizes.padded_output
        self._sizes = [sizes.of_state(place)[0] for place in range(len(made.widths))]
        whole = WholeRows(dtype.itemsize)
        self._beside = GivenBeside(made.beside, call, counted)
        is_padded, extra = sizes.output != self._width, {}
        # What a call makes: what is kept, the output, the final states.
        shapes: list[tuple[str, tuple[int, ...]]]
        shapes = [(f"saved {place}", (rows, width)) for place, width in enumerate(made.made)]
        # The kernel's output is the caller's but where it is kept, since he may write to it, and where it is padded.
        self._copies = is_padded or (tape and given is not None and not shares)
        own, kept = "kept output" if self._copies else "output", (rows, outputs * self._width)
        if made.output_place is not None:
            shapes.insert(made.output_place, (own, kept))
        elif is_padded:  # and nobody reads it again
            extra[own] = rows * outputs * self._width * dtype.itemsize
        self._saved = len(shapes)
        if self._copies and not is_padded:
            shapes.append((own, kept))
        # Stands for the output among what is kept, where that is not read.
        lines = 1 if counted else rows
        self._unread = template((lines, outputs * sizes.output), dtype) if is_padded and tape else None
        self._output = len(shapes)
        shapes.append(("output", given or (rows, outputs * sizes.output)))
        lead = () if given is None else (1,)
        self._finals = [f"final {place}" for place in range(len(made.widths))]
        shapes += [(name, (*lead, batch, size)) for name, size in zip(self._finals, self._sizes, strict=True)]
        self._templates = [template(shape, dtype) for _, shape in shapes]
        self._row_widths = [(name, shape[-1]) for name, shape in shapes[: self._output + 1]]
        # What is large comes from the pool, but not what the caller gets.
        self._makers = [
            partial(_empty_like, each)
            if math.prod(shape) * dtype.itemsize <= _SMALL or (name == "output" and given is not None)
            else partial(POOL.tensor, *shape, dtype=dtype)
            for each, (name, shape) in zip(self._templates[: self._output + 1], shapes, strict=False)
        ]
        given_rows = [self._beside.rows_of(name, whole) for name in self._beside.places]
        saved = [f"saved {place}" for place in range(len(made.made))]
        self._name_of = {X: "x", OUTPUT: own} | dict(enumerate((*saved, *given_rows)))
        # Where a sequence begins anew at its first step, not the states that were given.
        self._restarts = call.has_resets and call.has_states and not made.schedule.backwards
        self._carried = [self._history(place) for place in range(len(made.widths))]
        extra |= {
            name: 2 * batch * width * dtype.itemsize
            for name, width in zip(self._carried, made.widths, strict=True)
            if name.startswith("pair")
        }
        states = [f"state {place}" for place in range(len(made.widths))]
        firsts = [
            whole.of(name, batch, size, width)
            for name, size, width in zip(states, self._sizes, made.widths, strict=True)
        ]

        def places(run: SmallRun) -> list[tuple[str, int]]:
            given = [(self._name_of[place], at) for place, at in zip(made.given, run.given, strict=True)]
            return given + carried_places(run, firsts, self._carried) + own_places(run, whole)

        weights = [f"weight {place}" for place in range(len(made.shape.stems))]
        names = ("x", *states, *weights, *(name for name, _ in shapes), *_RESETS[: call.has_resets])
        forms = self._beside.forms(kernel.program)
        names += MASKED if is_masked else ()
        self._is_masked = is_masked
        stages = None if spans is None else Stages(spans, lambda *_: (), self._after)
        self._in_blocks = spans is not None
        self.runs = SmallRuns(
            kernel, made.shape, places, whole, self._jobs, extra, names, forms, stages, counted is not None
        )

    def _history(self, place: int) -> str:
        """Where the states after the steps are left."""
        history = self._pass.histories[place]
        if history is not None:
            return self._name_of[history]
        return self._finals[place] if self._pass.are_finals[place] else f"pair {place}"

    def _jobs(self, run: SmallRun) -> Jobs:
        """The copies for the caller."""
        made, schedule = self._pass, self._pass.schedule
        found = Jobs(run.kernel.dtype.itemsize)
        if self._counted is not None:
            self._counted_jobs(found, self._counted)
            return found
        if self._copies and not self._in_blocks:
            self._copy(found, slice(0, schedule.rows))
        for place, (size, width) in enumerate(zip(self._sizes, made.widths, strict=True)):
            for first, rows, at in schedule.ends(made.histories[place] is None):
                if not made.are_finals[place]:
                    to = (self._finals[place], first * size)
                    if at is None:
                        found.move(to, (f"state {place}", first * size), rows, size, size)
                    else:
                        found.move(to, (self._carried[place], at * width), rows, size, width)
        return found

    def _counted_jobs(self, found: Jobs, counted: Count) -> None:
        """The same where each call says how many rows there are."""
        made, size, width = self._pass, self._pass.sizes.output, self._width
        if self._copies:
            outputs = Count("rows of outputs", counted.most * made.sizes.outputs)
            found.copies.copy(("output", 0), size, ("kept output", 0), width, outputs, size)
        for place, (size, width) in enumerate(zip(self._sizes, made.widths, strict=True)):
            carried, first = (self._carried[place], width), (f"state {place}", size)
            after = "offsets" if made.histories[place] is not None else "pair after"
            found.steps.end(self._finals[place], carried, first, size, after, made.schedule.batch)

    def _copy(self, jobs: Jobs, rows: slice) -> None:
        """Of the output of some steps, for whoever is given that."""
        each, size, width = self._pass.sizes.outputs, self._pass.sizes.output, self._width
        to, source = ("output", rows.start * each * size), ("kept output", rows.start * each * width)
        jobs.move(to, source, (rows.stop - rows.start) * each, size, width)

    def _after(self, run: SmallRun, rows: slice) -> Any:
        found = Jobs(run.kernel.dtype.itemsize)
        if self._copies:
            self._copy(found, rows)
        masks, width = Masks(found.bytes), self._pass.sizes.output
        if self._is_masked:
            dropped, mask = MASKED
            masks.multiply(dropped, "output", mask, rows.start * width, (rows.stop - rows.start) * width)
        return (found, small_products), (found.copies, copy_rows), (masks, multiply)

    def run(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        """The output, what is kept of it, the final states, and what else is kept; x (rows, D) in any shape."""
        made = list(map(_empty_like, self._templates))
        if self._restarts:
            states = restarted(states, resets[0])
        self.runs.enter((x, *states, *self._beside.whole(weights), *made, *resets))
        return self._parted(made)

    def run_counted(
        self,
        schedule: TimeSchedule,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        *resets: Tensor,
    ) -> tuple[Any, ...]:
        """The same of a call that says how many rows there are, and where they lie."""
        rows, dtype = schedule.rows, x.dtype
        made = [
            torch.empty(rows, width, dtype=dtype, device="cpu")
            if name == "output" or rows * width * dtype.itemsize <= _SMALL
            else POOL.tensor(rows, width, dtype=dtype)
            for name, width in self._row_widths
        ]
        made += map(_empty_like, self._templates[self._output + 1 :])
        if self._restarts:
            states = first_states(states, resets[0], schedule)
        given = (x, *states, *self._beside.whole(weights), *made, *resets)
        self.runs.enter(given, words_of(schedule, self._pass.sizes.outputs))
        output, kept, finals, saved = self._parted(made)
        return output, kept if self._unread is None else kept.expand(rows, -1), finals, saved

    def _parted(self, made: list[Tensor]) -> tuple[Any, ...]:
        output = made[self._output]
        kept = made[self._saved] if self._copies else output
        if self._unread is not None:
            kept = self._unread
        return output, kept, made[self._output + 1 :], made[: self._saved]

    def begin(
        self,
        run: SmallRun,
        x: int,
        states: Sequence[int],
        weights: Sequence[int],
        finals: Sequence[int],
        *rest: int,
    ) -> tuple[Any, ...]:
        """Make a call's tensors, the final states apart, and write their addresses: of a run in blocks.

        Returns:
            The output, what is kept of it, nothing, and what else is kept.
        """
        made = [make() for make in self._makers]
        run.write(x, *states, *weights, *map(_address, made), *finals, *rest)
        return self._parted(made)


class CpuSmallPass(SmallPass):
    """A layer pass of few rows, each of its kernels made when it is first needed."""

    def __init__(self, call: SmallCall, infers: bool, records: bool) -> None:
        self._call, self.infers, self.records = call, infers, records
        self.differentiates = records

    @cached_property
    def _infers(self) -> SmallForward:
        return forward_of(self._call, False)

    @cached_property
    def _records(self) -> SmallForward:
        return forward_of(self._call, True)

    @cached_property
    def _differentiates(self) -> SmallBackward:
        return backward_of(self._call)

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        return self._infers.run(x, states, weights, *resets)

    def record(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        return self._records.run(x, states, weights, *resets)

    def differentiate(self, *arguments: Any) -> tuple[Tensor | None, ...]:
        return self._differentiates.run(*arguments)


def forward_of(
    call: SmallCall,
    tape: bool,
    kernel: Kernel | None = None,
    counted: Count | None = None,
    shares: bool = False,
) -> SmallForward:
    kernels: Any = call.kernels  # of this backend's own kind
    made = ForwardPass(kernels, call.bias, call.lengths, call.schedule, call.has_resets, tape, _CPU)
    kernel = kernel or (kernels.training if tape else kernels.inference)
    return SmallForward(made, call, kernel, tape, counted=counted, shares=shares)


def backward_of(call: SmallCall, kernel: Kernel | None = None, counted: Count | None = None) -> SmallBackward:
    kernels: Any = call.kernels
    made = BackwardPass(kernels, call.bias, call.lengths, call.schedule, call.has_resets, _CPU)
    return SmallBackward(made, call, kernel or kernels.backward, counted=counted)


def small_pass(call: SmallCall) -> SmallPass | None:
    """The way for calls of this shape, if they are small: of few rows, for one thread, with gradients or without."""
    kernels, schedule = call.kernels, call.schedule
    graph, (width, hidden, projected) = kernels.graph, call.lengths
    rows = schedule.rows
    inner = len(graph.input_gates) * width + len(graph.state_gates) * (projected or hidden)
    is_ragged = call.is_ragged or not schedule.is_dense
    if not has_chain(kernels, rows, hidden):
        from cellwise.backends.cpu.three_run import goes_by_three

        by_three = kernels.dtype is torch.float32 and goes_by_three(schedule.batch)
        if by_three or not (is_ragged and has_ragged_chain(kernels, rows, hidden)):
            return None
    work, batch = rows * hidden * (inner + 20), schedule.batch
    shared = batch > 1 or _shares_units(call)
    infers, records = (not (shared and is_for_many(work, batch, each)) for each in (False, True))
    if not (infers or records):
        return None
    if is_ragged:
        from cellwise.backends.cpu.small_ragged import RaggedPass

        return RaggedPass(call, infers, records)
    return CpuSmallPass(call, infers, records)


def _shares_units(call: SmallCall) -> bool:
    """Whether two threads share the units of such a call, which is all that they can share of a single row."""
    graph, schedule, (width, hidden, projected) = call.kernels.graph, call.schedule, call.lengths
    lengths, threads = (width, hidden, projected or hidden), torch.get_num_threads()
    can = not (call.has_resets or forward_program(graph, None, bool(projected)).rows)
    return can and is_worth_it(graph, lengths, schedule.steps, schedule.batch, threads)


def has_chain(kernels: CellKernels, rows: int, hidden: int) -> bool:
    """Whether calls of so few rows have one, whoever runs them."""
    gate_bytes = gates_of(kernels.graph) * kernels.dtype.itemsize
    return is_of_chains(kernels) and is_small(rows, gate_bytes, hidden, kernels.padded(1))


def has_ragged_chain(kernels: CellKernels, rows: int, hidden: int) -> bool:
    """Whether calls have one whose rows have several lengths: also of more rows, where what surrounds a kernel is more
    for them than for dense ones.
    """
    gate_bytes = gates_of(kernels.graph) * kernels.dtype.itemsize * kernels.padded(hidden)
    return is_of_chains(kernels) and 0 < rows <= MOST_RAGGED and rows * gate_bytes <= MOST_RAGGED_BYTES


def is_of_chains(kernels: CellKernels) -> bool:
    """Whether a cell's calls of few rows have one."""
    return kernels.dtype is not torch.bfloat16
