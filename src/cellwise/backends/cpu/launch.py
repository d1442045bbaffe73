"""The arguments of a kernel as the addresses it takes, and the launch, in as many threads as it is worth.

Which buffer stands where among a kernel's pointers depends on its shape alone. So does what a run makes for itself:
rows within a step, packed weights, room for accumulators. They lie one after the other in one piece of scratch memory,
which mostly is where it was in the last call; then only the addresses of the call's own tensors are written anew.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from cellwise.backends.compiled.compiler import GIVEN, Carried, KernelRun, RunShape
from cellwise.backends.compiled.rows import in_rows
from cellwise.backends.compiled.scratch import SCRATCH
from cellwise.backends.cpu.blocks import block_steps
from cellwise.backends.cpu.by_units import ARRIVALS, give_way, in_units
from cellwise.backends.cpu.chain import Chain
from cellwise.backends.cpu.kernel import ADDRESSES, keeps_tape, size_names
from cellwise.backends.cpu.pack import Packing
from cellwise.backends.cpu.team import Share
from cellwise.backends.cpu.threads import in_step, row_shares, threads_for, together
from cellwise.graph import StepGraph
from cellwise.plan.buffers import TAPE
from cellwise.plan.program import StorageClass, Width

if TYPE_CHECKING:
    from cellwise.backends.cpu.compiler import Kernel

# Numbers that a core packs in the time that it takes to hand work to another thread.
_PACKED_MEANWHILE = 100_000
_ALIGNED = 64
# A tape of more bytes goes past caches. The kernel that keeps it takes 0.89 times as long with 128 MB (LSTM,
# 784,64,1,128), 0.95 with 65 MB, 1.00 to 1.04 with 8, 16 and 33 MB, 1.04 to 1.09 with less; the third cache had 32 MB.
_PAST_CACHES = 48 * 2**20
Phase = Sequence[Share]  # what may be done at once, after all of the phase before
_OWN = (StorageClass.PER_UNIT, StorageClass.SCALAR)
PACKED = ("weight_", "bias_")


def work_of(graph: StepGraph, rows: int, input_size: int, hidden: int, output: int) -> int:
    """Multiply-adds of a pass; the pointwise work of a unit costs about as much as 20 of them."""
    inner = len(graph.input_gates) * input_size + len(graph.state_gates) * output
    return rows * hidden * (inner + 20)


class CpuRun(KernelRun):
    def __init__(self, kernel: Kernel, shape: RunShape) -> None:
        self.kernel, self.shape = kernel, shape
        self.keeps_tape = keeps_tape(kernel.program)
        self.past_caches = len(size_names(kernel.program)) - 1  # of the words of sizes, if a tape is kept
        sizes, graph = shape.sizes, kernel.program.graph
        self.widths = {
            Width.INPUT: sizes.input,
            Width.HIDDEN: sizes.padded,
            Width.PROJECTED: sizes.padded_projected,
            Width.ROW: 1,
            Width.PARTIAL: kernel.lanes,
        }
        self.work = work_of(graph, shape.schedule.rows, sizes.input, sizes.hidden, sizes.output)
        self.packed = [i for i, stem in enumerate(shape.stems) if stem.startswith(PACKED)]
        self.packing = (
            kernel.packing(sizes, tuple(shape.stems[i] for i in self.packed)) if self.packed else None
        )
        self._place()
        self.laid_out: tuple[int, int] | None = (
            None  # for how many threads, and runs that are launched together
        )

    def _place(self) -> None:
        """Where each buffer stands among the pointers."""
        stems = {stem: place for place, stem in enumerate(self.shape.stems)}
        self.given: list[int] = []
        self.own: list[tuple[int, int, int]] = []  # pointer, weight, width
        self.rows: list[tuple[int, int]] = []  # pointer, bytes of a row
        self.summed: list[tuple[int, str, int]] = []  # pointer, name, how many
        # Of what has one number for all units, or one for each: pointer, which of the given ones, its form.
        self.forms: list[tuple[int, int, np.ndarray]] = []
        # Of what holds the rows of a span of steps: pointer, bytes of a row.
        self.chunks: list[tuple[int, int]] = []
        self.tape: int | None = None  # which of the given ones, if it is written
        self.ahead: int | None = None  # the first pointer of what is multiplied for a block of steps
        place, found = 0, {}
        for buffer in self.kernel.program.buffers:
            found[buffer.name] = place
            size = buffer.columns * self.widths[buffer.width]
            if buffer.storage is StorageClass.PER_CHUNK:
                self.chunks.append((place, size * self.kernel.word))
            if buffer.storage in GIVEN:
                if buffer.name == TAPE and self.keeps_tape:
                    self.tape = len(self.given)
                self.given.append(place)
                if buffer.storage is StorageClass.BESIDE:
                    self.forms.append((place + 1, len(self.given) - 1, np.zeros(2, np.int64)))
            elif buffer.storage is StorageClass.SCRATCH:
                self.rows.append((place, size * self.kernel.scratch_bytes))
            elif buffer.storage is StorageClass.AHEAD:
                self.ahead = place
            elif buffer.storage is StorageClass.REDUCTION:
                self.summed.append((place, buffer.name, size))
            elif buffer.storage in _OWN:
                width = size if buffer.storage is StorageClass.PER_UNIT else 0
                self.own.append((place, stems[buffer.name.removeprefix("own ")], width))
            place += len(ADDRESSES.get(buffer.storage, ("",)))
        self.count = place
        after = {before.name: found[after.name] for before, after in self.kernel.program.states}
        # Of what is carried into a step, and out of it.
        self.before: list[tuple[int, int | None]] = [
            (found[buffer.name], after.get(buffer.name))
            for buffer in self.kernel.program.buffers
            if buffer.storage is StorageClass.CARRY_IN
        ]

    def _share(self, threads: int) -> None:
        """Lay out pointers and memory for so many threads."""
        kernel, shape = self.kernel, self.shape
        self.laid_out, self.by_units = (threads, self.at_once), self._goes_by_units(threads)
        self.shares = (
            ((0, shape.schedule.batch),) * 2 if self.by_units else row_shares(shape.schedule, threads)
        )
        element, schedule = kernel.word, shape.schedule
        # Bytes of each part of scratch memory: rows within a step, packed weights, of each share sums and operands of a
        # block of steps, and room.
        self.parts = [schedule.batch * size for _, size in self.rows]
        self.parts += [self.packing.elements * element] if self.packing else []
        self.first_ahead = len(self.parts)
        if self.ahead is not None:
            for _, count in self.shares:
                most = block_steps(schedule.steps, count) * count
                widths = (kernel.sums_ahead(shape.sizes.padded), shape.sizes.input)
                self.parts += [most * width * element for width in widths]
        self.first_room = len(self.parts)
        room = kernel.room_bytes(shape.sizes)
        self.parts += [room * count for _, count in self.shares]
        edges = itertools.accumulate(map(_rounded, self.parts), initial=0)
        *self.starts, self.bytes = edges
        self.base = -1
        self.totals = [np.zeros((len(self.shares), size)) for _, _, size in self.summed]
        rows = [torch.from_numpy(total) for total in self.totals]
        # Of one share they are its row itself.
        self.sum_rows = rows if len(self.shares) > 1 else [row[0] for row in rows]
        packed = len(self.packing.places) + len(self.packing.as_they_are) if self.packing else 0
        self.pointers = [np.zeros(self.count + packed + 3, np.int64) for _ in self.shares]
        self.views = [pointers.data for pointers in self.pointers]  # written to in half the time
        self.sizes = [self._sizes(first, count) for first, count in self.shares]
        call, given = kernel.call, [*self.pointers]
        self.at_best = math.inf  # seconds of a step
        if self.by_units:
            self.arrivals, call = np.zeros(5 * ARRIVALS, np.int64)[ARRIVALS:], kernel.by_units
            # The third set is of one thread that has all units.
            self.sizes = [
                np.append(
                    self.sizes[0],
                    np.array([number, threads, self.arrivals.ctypes.data, give_way()], np.int64),
                )
                for number, threads in ((0, 2), (1, 2), (0, 1))
            ]
            given.append(self.pointers[0])
        shares = [
            Share(call, pointers.ctypes.data, sizes.ctypes.data)
            for pointers, sizes in zip(given, self.sizes, strict=True)
        ]
        self.calls, self.alone = shares[: len(self.pointers)], shares[-1]
        self.packs = Packs(kernel, self.packing, len(self.packed), len(self.shares)) if self.packing else None
        self._fixed()

    @property
    def as_they_are(self) -> list[tuple[int, int]]:
        """Of each pointer to a weight as it lies: where it stands, and the number among what else is packed."""
        if self.packing is None:
            return []
        first = self.count + len(self.packing.places)
        return [
            (place, number)
            for place, number in enumerate(self.packing.as_they_are, first)
            if number is not None
        ]

    def _goes_by_units(self, threads: int) -> bool:
        """Whether two threads share units and not rows."""
        can = self.at_once == 1 and not self.kernel.multiplies_bf16
        return can and in_units(self.kernel.program, self.shape, threads)

    def _sizes(self, first: int, count: int) -> np.ndarray:
        """What `kernel.SIZES` names: for a share of the rows, and no steps yet."""
        shape, sizes = self.shape, self.shape.sizes
        backwards = shape.schedule.backwards
        lengths = (*sizes[:3], sizes.padded, sizes.padded_projected)
        # Backwards a boundary is met after the step that it stands before.
        marked = (shape.resets and not backwards, shape.resets and backwards)
        words = [0, 0, *lengths, first, count, backwards, *marked]
        if self.ahead is not None:
            steps = block_steps(shape.schedule.steps, count)
            words += [steps, steps * count]
        words += [0] * self.keeps_tape
        return np.array(words, np.int64)

    def _fixed(self) -> None:
        """Write the addresses that are the same in every call of this shape."""
        schedule = self.shape.schedule
        own = opposite = schedule.addresses
        if Carried.OPPOSITE in self.shape.carried:
            self.opposite = schedule.reversed  # held, since the kernel is given addresses in it
            opposite = self.opposite.addresses
        for (before, after), way in zip(self.before, self.shape.carried, strict=True):
            at = opposite if way is Carried.OPPOSITE else own
            kind = "pair_" if way is Carried.PAIR else ""
            for pointers in self.pointers:
                pointers[before + 2 : before + 4] = at[f"{kind}before"], at["limits"]
                if after is not None:
                    pointers[after + 1] = at[f"{kind}after"]
        for (place, _, _), total in zip(self.summed, self.totals, strict=True):
            # Of units each has its own, which the other may have to go on with.
            rows = [total[0]] * 2 if self.by_units else total
            for pointers, row in zip(self.pointers, rows, strict=True):
                pointers[place] = row.ctypes.data
        for pointers in self.pointers:
            pointers[-2] = own["offsets"]
            for place, _, form in self.forms:
                pointers[place] = form.ctypes.data

    def _take(self) -> None:
        """Take scratch memory for this call."""
        base = SCRATCH.address(self.bytes)
        if base != self.base:
            self.base = base
            self._move([base + start for start in self.starts])

    def _move(self, parts: Sequence[int]) -> None:
        """Write the addresses of what a run makes for itself; these are those of the parts."""
        count = self.count
        places: list[int] = []
        if self.packing is not None:
            self.packed_start = parts[self.first_ahead - 1]
            places = [self.packed_start + place for place in self.packing.places]
        rooms = parts[self.first_room :]
        for number, (pointers, room, (first, _)) in enumerate(
            zip(self.pointers, rooms, self.shares, strict=True)
        ):
            for (place, size), start in zip(self.rows, parts[: len(self.rows)], strict=True):
                pointers[place] = start + first * size
            if self.ahead is not None:
                own = self.first_ahead + 2 * number
                pointers[self.ahead : self.ahead + 2] = parts[own : own + 2]
                if self.by_units:  # either may go on with what the other has done
                    pointers[self.ahead] = parts[self.first_ahead]
            pointers[count : count + len(places)] = places
            pointers[-3] = room

    def bind(
        self,
        buffers: Sequence[Tensor],
        firsts: Sequence[Tensor],
        histories: Sequence[Tensor],
        weights: Sequence[Tensor],
        resets: Tensor | None,
    ) -> None:
        threads = max(1, threads_for(self.work * self.at_once) // self.at_once)
        if self.laid_out != (threads, self.at_once):
            self._share(threads)
        self._take()
        # In memory until the call is over; the caller has the other tensors.
        own = self.held = [_own(weights[weight], width) for _, weight, width in self.own]
        for pointers in self.views:
            for place, tensor in zip(self.given, buffers, strict=True):
                pointers[place] = tensor.data_ptr()
            for (before, after), first, history in zip(self.before, firsts, histories, strict=True):
                start = history.data_ptr()
                pointers[before] = first.data_ptr()
                pointers[before + 1] = start
                if after is not None:
                    pointers[after] = start
            for (place, _, _), tensor in zip(self.own, own, strict=True):
                pointers[place] = tensor.data_ptr()
            if resets is not None:
                pointers[-1] = resets.data_ptr()
        for _, number, form in self.forms:
            width = buffers[number].shape[1]
            form[:] = width, width == self.shape.sizes.padded
        if self.tape is not None:
            tape = buffers[self.tape]
            past = tape.nbytes > _PAST_CACHES and tape.data_ptr() % _ALIGNED == 0
            for sizes in self.sizes:
                sizes[self.past_caches] = past
        for total in self.totals:
            total.fill(0)
        self.unpacked: list[Phase] = []
        if self.packs is not None:
            packed = [weights[place].contiguous() for place in self.packed]
            self.held += packed
            for pointers in self.views:
                for place, number in self.as_they_are:
                    pointers[place] = packed[number].data_ptr()
            self.unpacked = self.packs.phases(self.packed_start, packed)
        if self.at_once == 1:
            for phase in self.unpacked:
                together(phase)
            self.unpacked = []

    def launch(self, first: int, end: int) -> None:
        if not self.by_units:
            launch([(self, first, end)])
            return
        for sizes in self.sizes:
            sizes[0] = first
            sizes[1] = end - first
        self.arrivals[:] = 0
        steps = max(1, end - first)
        took = in_step(self.calls, self.alone, self.arrivals, self.at_best * steps)
        self.at_best = min(self.at_best, took / steps)

    def phases(self, first: int, end: int) -> list[Phase]:
        """What is to be done for these steps, packing too if that was left to do."""
        for sizes in self.sizes:
            sizes[0] = first
            sizes[1] = end - first
        found: list[Phase] = [*self.unpacked, self.calls]
        self.unpacked = []
        if len(found) > 1 and all(len(phase) == 1 for phase in found):
            self.chain = Chain([(each.function, each.first, each.second) for (each,) in found])
            return [[self.chain.share]]
        return found

    def release(self) -> None:
        self.held, self.unpacked = [], []

    def sums(self) -> dict[str, Tensor]:
        return {
            name: rows.sum(0) if len(self.shares) > 1 else rows
            for (_, name, _), rows in zip(self.summed, self.sum_rows, strict=True)
        }


class Phased(Protocol):
    """What `launch` takes: a `CpuRun`, or what chooses among some."""

    def phases(self, first: int, end: int) -> list[Phase]: ...


def launch(runs: Sequence[tuple[Phased, int, int]]) -> None:
    """Run steps of several runs at once: of each from the first up to the end."""
    phases = [run.phases(first, end) for run, first, end in runs]
    for number in range(max(map(len, phases))):
        together([share for each in phases for phase in each[number : number + 1] for share in phase])


class Packs:
    """Packs weights, in several threads where there are many."""

    def __init__(self, kernel: Kernel, packing: Packing, weights: int, threads: int) -> None:
        self._threads = min(threads, 1 + packing.elements // _PACKED_MEANWHILE)
        edges = [packing.placing * i // self._threads for i in range(self._threads)]
        edges += [packing.placing, len(packing.jobs)]
        if self._threads == 1:
            del edges[1]
        self._given = [
            np.array([first, end, 0, *[0] * weights], np.int64) for first, end in itertools.pairwise(edges)
        ]
        self._views = [each.data for each in self._given]
        self._calls = [Share(kernel.pack, packing.address, each.ctypes.data) for each in self._given]

    @property
    def alone(self) -> tuple[np.ndarray, int]:
        """What a single thread is given, and where that is: the first job, the end, to where, and the weights."""
        (given,) = self._given
        return given, given.ctypes.data

    def run(self, start: int, weights: Sequence[Tensor]) -> None:
        """Pack the weights, contiguous ones in the order of the packing, from an address on."""
        for phase in self.phases(start, weights):
            together(phase)

    def phases(self, start: int, weights: Sequence[Tensor]) -> list[Phase]:
        """What packs the weights, contiguous ones in the order of the packing, from an address on."""
        for given in self._views:
            given[2] = start
            for place, weight in enumerate(weights, 3):
                given[place] = weight.data_ptr()
        if len(self._calls) == 1:
            return [self._calls]
        return [self._calls[: self._threads], self._calls[self._threads :]]


def _own(weight: Tensor, width: int) -> Tensor:
    """One of a cell's own parameters: a number, or one for each unit, in whole vectors."""
    return in_rows(weight, width) if width else weight.contiguous()


def _rounded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
