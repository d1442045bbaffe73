"""Small calls whose rows have several lengths (`small_calls.py`).

Lengths are mostly others in the next call, and to lay out a chain takes longer than it saves once. So a chain is laid
out for calls of any lengths with so many rows in the batch: how many valid steps there are, and where they lie, is told
by each call, as the addresses of its tensors are. What is left to know beforehand are room for as many steps as a small
call may have, and the kernel, which is that of all calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cellwise.backends.compiled.compiler import RunShape, SmallCall, SmallPass
from cellwise.backends.compiled.handed_out import are_shared, is_free, stand_in
from cellwise.backends.compiled.saved import make_sizes
from cellwise.backends.compiled.time_schedule import TimeSchedule, even_schedule
from cellwise.backends.cpu.few_rows import MOST_SMALL
from cellwise.backends.cpu.small_backward import SmallBackward
from cellwise.backends.cpu.small_calls import SmallForward, backward_of, forward_of, has_chain
from cellwise.backends.cpu.small_jobs import Count
from cellwise.torch_internals import has_saved_tensors_hooks

if TYPE_CHECKING:
    from cellwise.backends.compiled.cell_kernels import CellKernels
    from cellwise.backends.cpu.compiler import Kernel

_MOST_KERNELS = 4096  # forms of calls whose kernel is remembered


class RaggedPass(SmallPass):
    """A layer pass of few rows that have these lengths."""

    def __init__(self, call: SmallCall, infers: bool, records: bool) -> None:
        self.infers, self.records, self.differentiates = infers, records, records
        self._call, self.shares_output = call, call.given is not None
        self._schedule = schedule = call.schedule
        steps = 2 ** max(1, (schedule.steps - 1).bit_length())
        # The output's shape, which a caller is given, follows from the rows.
        given = None if call.given is None else ()
        kernels, hidden = call.kernels, call.lengths[1]
        rows = MOST_SMALL
        if not has_chain(kernels, schedule.rows, hidden):
            rows = max(2 * MOST_SMALL, 2 ** (schedule.rows - 1).bit_length())
        form = (given, call.has_states, call.device, call.has_resets, call.beside)
        most = (steps, schedule.batch, schedule.backwards, rows)
        self._plans = _plans(kernels, call.bias, call.lengths, form, most)

    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        schedule = self._schedule
        return self._plans.forward(schedule, False).run_counted(schedule, x, states, weights, *resets)

    def record(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *resets: Tensor
    ) -> tuple[Any, ...]:
        schedule, shares = self._schedule, self._shares()
        run = self._plans.forward(schedule, True, shares).run_counted
        output, kept, finals, saved = run(schedule, x, states, weights, *resets)
        if shares and is_free(self._call.kernels, output, self._call.has_resets):
            kept = stand_in(output)
        return output, kept, finals, saved

    def _shares(self) -> bool:
        """Whether the caller is to be given the output that is kept, as in all calls (`handed_out.py`)."""
        call, sizes = self._call, self._plans.sizes
        if call.given is None or sizes.output != sizes.padded_output or has_saved_tensors_hooks():
            return False
        width = sizes.outputs * sizes.output
        size = self._schedule.rows * width * call.kernels.dtype.itemsize
        return are_shared(call.kernels, sizes.input, width, size)

    def differentiate(self, *arguments: Any) -> tuple[Tensor | None, ...]:
        return self._plans.backward(self._schedule).run(*arguments, schedule=self._schedule)


class _Plans:
    """Those for calls of one form but for their lengths, and of at most so many rows."""

    def __init__(self, call: SmallCall, rows: int) -> None:
        self._call = call
        self._counted = Count("rows", rows)
        self.sizes = make_sizes(call.kernels, *call.lengths)
        self._kernels: dict[tuple[int, int, str], Kernel] = {}
        self._made: dict[tuple[str, Kernel, bool], Any] = {}

    def forward(self, schedule: TimeSchedule, tape: bool, shares: bool = False) -> SmallForward:
        kind = "training" if tape else "inference"
        kernel = self._kernel(schedule, kind)
        key = (kind, kernel, shares)
        if key not in self._made:
            self._made[key] = forward_of(self._call, tape, kernel, self._counted, shares)
        found: SmallForward = self._made[key]
        return found

    def backward(self, schedule: TimeSchedule) -> SmallBackward:
        kernel = self._kernel(schedule, "backward")
        key = ("backward", kernel, False)
        if key not in self._made:
            self._made[key] = backward_of(self._call, kernel, self._counted)
        found: SmallBackward = self._made[key]
        return found

    def _kernel(self, schedule: TimeSchedule, kind: str) -> Kernel:
        """The kernel that all calls of this schedule take, whichever way it goes."""
        key = (schedule.steps, schedule.rows, kind)
        found = self._kernels.get(key)
        if found is None:
            # As far as it is asked for.
            shape = RunShape(self.sizes, schedule, (), (), self._call.has_resets, torch.device("cpu"))
            found = getattr(self._call.kernels, kind).for_shape(shape)
            if len(self._kernels) >= _MOST_KERNELS:
                self._kernels.clear()
            self._kernels[key] = found
        return found


@lru_cache(maxsize=256)
def _plans(
    kernels: CellKernels,
    bias: bool,
    lengths: tuple[int, int, int],
    form: tuple[Any, ...],
    most: tuple[int, int, bool, int],
) -> _Plans:
    """By what is equal where it is the same: schedules are not."""
    steps, batch, backwards, rows = most
    return _Plans(SmallCall(kernels, bias, lengths, even_schedule(steps, batch, backwards), *form), rows)
