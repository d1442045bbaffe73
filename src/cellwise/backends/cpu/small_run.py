"""A kernel and what comes after it as one chain, on tensors whose addresses are written at fixed places."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from cellwise.backends.compiled.compiler import Carried, RunShape
from cellwise.backends.compiled.scratch import SCRATCH
from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.backends.cpu.chain import Chain
from cellwise.backends.cpu.code import POINTER, Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.copy_rows import copy_rows
from cellwise.backends.cpu.launch import CpuRun
from cellwise.backends.cpu.small_jobs import Jobs, LayOut, Table, WholeRows
from cellwise.backends.cpu.small_products import WORD, small_products
from cellwise.backends.cpu.step_rows import lay_out, step_rows
from cellwise.backends.cpu.target import Target

if TYPE_CHECKING:
    from cellwise.backends.cpu.compiler import Kernel

_ALIGNED = 64
_address = Tensor.data_ptr

# Where a word is written: of which array, at which index, and how many bytes behind the beginning of a tensor.
Place = tuple[np.ndarray, int, int]
_SPREAD = ("to", "which", "behind")
Link = tuple[Any, int, int]
MakeLoop = Callable[[int, Target], Any]
# Of blocks of steps the first step, the end and the rows, in the order in which they run.
Spans = Sequence[tuple[int, int, slice]]

# What each call says where rows have several lengths, behind the addresses of its tensors: how many rows there are, and
# these times the outputs of a step; the steps, and where the offsets of `TimeSchedule` lie.
SCHEDULE = ("rows", "rows of outputs", "schedule steps", "schedule offsets")


def words_of(schedule: TimeSchedule, outputs: int) -> tuple[int, ...]:
    """The words that `SCHEDULE` names; it must be held until the call is over."""
    rows = schedule.rows
    return rows, rows * outputs, schedule.steps, schedule.start


def emit_spread(target: Target) -> ir.Module:
    """void spread(int64 *table, int64 *addresses): write addresses, and how many bytes behind, to table[0] places."""
    code = Code("spread", WORD, target)
    b, whole = code.b, code.whole
    table, addresses = code.function.args
    with code.loop("place", code.load_whole(table, 0)) as number:
        at = b.add(b.mul(number, whole(len(_SPREAD))), whole(1))
        to, which, behind = (code.load_whole(table, b.add(at, whole(i))) for i in range(len(_SPREAD)))
        b.store(b.add(code.load_whole(addresses, which), behind), b.inttoptr(to, POINTER))
    b.ret_void()
    return code.module


@cache
def spread(target: Target) -> Any:
    return load("spread", object_code(emit_spread(target), target))


def spread_table(places: Sequence[Sequence[Place]]) -> np.ndarray:
    """What `spread` reads, for the places of each address."""
    words = [
        word
        for which, each in enumerate(places)
        for array, index, behind in each
        for word in (array.ctypes.data + WORD * index, which, behind)
    ]
    return np.array([len(words) // len(_SPREAD), *words], np.int64)


class Stages(NamedTuple):
    """A run in blocks of its steps.

    before, after: what is done before and after the kernel for the rows of each, as tables and what makes the loop over
    a table. last: what is done beside all else after the last.
    """

    spans: Spans
    before: Callable[[SmallRun, slice], Sequence[tuple[Table, MakeLoop]]]
    after: Callable[[SmallRun, slice], Sequence[tuple[Table, MakeLoop]]]
    last: Callable[[], Sequence[tuple[Table, MakeLoop]]] = tuple


class SmallRun(CpuRun):
    """A kernel, its packing and what comes after it, in one chain. One call uses it at a time.

    Args:
        make_places: from the run, by tensor where among the kernel's pointers its address stands.
        whole: what is copied before the kernel reads it.
        make_jobs: from the run, whose sums they may read, what is done after the kernel.
        extra: by name, bytes of scratch memory of the call's own, which places and jobs may name.
        names: of the tensors, in the order in which `enter` is given them; "resets" of what marks steps.
        forms: how wide the rows are of each value beside x, in the order of the kernel's pointers.
        stages: where it goes block by block of its steps.
        is_ragged: whether each call says how many rows there are, and where they lie (`SCHEDULE`). The schedule of the
            shape then has as many steps as any call.

    chains: what it runs; in blocks what comes before the first, each block, and what comes after the last.
    """

    def __init__(
        self,
        kernel: Kernel,
        shape: RunShape,
        make_places: Callable[[SmallRun], Sequence[tuple[str, int]]],
        whole: WholeRows,
        make_jobs: Callable[[SmallRun], Jobs],
        extra: dict[str, int],
        names: Sequence[str],
        forms: Sequence[int],
        stages: Stages | None = None,
        is_ragged: bool = False,
    ) -> None:
        super().__init__(kernel, shape)
        self._share(1)
        self.sizes[0][1] = shape.schedule.steps
        for (_, _, form), width in zip(self.forms, forms, strict=True):
            form[:] = width, width == shape.sizes.padded
        jobs, size = make_jobs(self), kernel.dtype.itemsize
        pointers = self.pointers[0]
        by_name: dict[str, list[Place]] = {"resets": [(pointers, len(pointers) - 1, 0)]}
        for name, index in make_places(self):
            by_name.setdefault(name, []).append((pointers, index, 0))
        layout = LayOut(shape.schedule.batch, shape.schedule.backwards, shape.schedule.steps)
        if is_ragged:
            names, extra = (*names, *SCHEDULE), extra | layout.room
            for name, array, index in self._scheduled():
                by_name.setdefault(f"schedule {name}", []).append((array, index, 0))
        self._tables: list[np.ndarray] = []  # held, since links have their addresses

        def linked(table: Table, make: MakeLoop) -> list[Link]:
            if not table:
                return []
            words, addresses = table.table()
            self._tables.append(words)
            for name, index, behind in addresses:
                by_name.setdefault(name, []).append((words, index, behind))
            return [(make(size, kernel.target), words.ctypes.data, 0)]

        links = (linked(layout, lay_out) if is_ragged else []) + linked(whole, copy_rows)
        if self.packs is not None and self.packing is not None:
            given, address = self.packs.alone
            for place, weight in enumerate(self.packed, 3):
                by_name.setdefault(f"weight {weight}", []).append((given, place, 0))
            self._packed_to = given.data
            if len(self.packing.jobs):
                links.append((kernel.pack, self.packing.address, address))
        for pointer, number in self.as_they_are:
            by_name.setdefault(f"weight {self.packed[number]}", []).append((pointers, pointer, 0))
        steps = [[(kernel.call, pointers.ctypes.data, self.sizes[0].ctypes.data)]]
        if stages is not None:
            steps = [
                [
                    *(link for table in stages.before(self, rows) for link in linked(*table)),
                    *self._block(first, end, rows.start),
                    *(link for table in stages.after(self, rows) for link in linked(*table)),
                ]
                for first, end, rows in stages.spans
            ]
        last = linked(jobs.steps, step_rows) + linked(jobs, small_products) + linked(jobs.copies, copy_rows)
        last += [link for table in (stages.last() if stages else ()) for link in linked(*table)]
        # First of all the addresses of tensors go where they are read.
        self._addresses = np.zeros(len(names), np.int64)
        self._spread = spread_table([by_name.get(name, []) for name in names])
        links.insert(0, (spread(kernel.target), self._spread.ctypes.data, self._addresses.ctypes.data))
        # One after the other; of a run that is in blocks each is a chain.
        whole_chain = [[link for part in (links, *steps, last) for link in part]]
        self.chains = [Chain(part) for part in (whole_chain if stages is None else (links, *steps, last))]
        self.write = partial(Struct(f"{len(names)}q").pack_into, self._addresses.data, 0)
        self._extra: list[tuple[int, list[Place]]] = []
        self.offset_of: dict[str, int] = {}
        for name, room in (extra | whole.room).items():
            self.offset_of[name] = self.bytes
            self._extra.append((self.bytes, by_name.get(name, [])))
            self.bytes += -(-room // _ALIGNED) * _ALIGNED

    def _scheduled(self) -> Iterator[tuple[str, np.ndarray, int]]:
        """Where what `SCHEDULE` names stands among the kernel's pointers and sizes, as `CpuRun` writes it."""
        pointers = self.pointers[0]
        yield "steps", self.sizes[0], 1
        yield "offsets", pointers, len(pointers) - 2
        for (before, after), way in zip(self.before, self.shape.carried, strict=True):
            if way is Carried.OPPOSITE:
                yield "other before", pointers, before + 2
                yield "following", pointers, before + 3
            else:
                kind = "pair " if way is Carried.PAIR else ""
                yield f"{kind}before", pointers, before + 2
                yield "limits", pointers, before + 3
                if after is not None:
                    yield "pair after" if way is Carried.PAIR else "offsets", pointers, after + 1

    def _block(self, first: int, end: int, row: int) -> list[Link]:
        """The kernel for some steps, the first of whose rows is this one of all."""
        sizes, pointers, links = self.sizes[0].copy(), self.pointers[0], []
        sizes[:2] = first, end - first
        self._tables.append(sizes)
        if self.chunks:
            # What holds a span of steps holds all of them, but the kernel begins with those of the block.
            own, behind = np.zeros_like(pointers), dict(self.chunks)
            moved = [[(own, place, behind.get(place, 0) * row)] for place in range(len(own))]
            table = spread_table(moved)
            self._tables += own, table
            links.append((spread(self.kernel.target), table.ctypes.data, pointers.ctypes.data))
            pointers = own
        return [*links, (self.kernel.call, pointers.ctypes.data, sizes.ctypes.data)]

    def enter(self, tensors: Iterable[Tensor], words: Iterable[int] = ()) -> Any:
        """Run on these, in the order of `names`; returns the block of scratch memory that it ran in.

        words: of `SCHEDULE`, where a call says these.
        """
        block = SCRATCH.fresh(self.bytes)
        self.settle(block.start)
        self.write(*map(_address, tensors), *words)
        for total in self.totals:
            total.fill(0)
        self.chains[0].run()
        return block

    def settle(self, base: int) -> None:
        """Write the addresses of scratch memory that begins here."""
        if base == self.base:
            return
        self.base = base
        self._move([base + start for start in self.starts])
        if self.packing is not None:
            self._packed_to[2] = self.packed_start
        for start, places in self._extra:
            for array, index, behind in places:
                array[index] = base + start + behind


class SmallRuns:
    """The runs for one shape; Python threads that call at once take one each."""

    def __init__(self, *made_from: Any) -> None:
        self._made_from = made_from
        self._idle: deque[SmallRun] = deque()

    def make(self) -> SmallRun:
        return SmallRun(*self._made_from)

    def enter(self, tensors: Iterable[Tensor], words: Iterable[int] = ()) -> tuple[SmallRun, Any]:
        try:
            run = self._idle.pop()
        except IndexError:
            run = self.make()
        block = run.enter(tensors, words)
        self._idle.append(run)
        return run, block


def template(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """What `torch.empty_like` makes such tensors from, in less time than torch.empty from a shape; one number large."""
    with torch.inference_mode(False):
        # A single number is as dense as it can be, and would keep strides of 0.
        own = shape if math.prod(shape) == 1 else ()
        return torch.zeros(own, dtype=dtype, device="cpu").expand(shape)


def carried_places(run: CpuRun, firsts: Sequence[str], histories: Sequence[str]) -> list[tuple[str, int]]:
    """Where among the pointers those of what is carried into a step stand, as `CpuRun.bind` writes them."""
    found = []
    for (before, after), first, history in zip(run.before, firsts, histories, strict=True):
        found += [(first, before), (history, before + 1)]
        if after is not None:
            found.append((history, after))
    return found


def own_places(run: CpuRun, whole: WholeRows) -> list[tuple[str, int]]:
    """Where those of a cell's own parameters stand: a number for each unit, or one as it lies."""
    hidden = run.shape.sizes.hidden
    return [
        (whole.of(f"weight {weight}", 1, hidden, width or hidden), pointer)
        for pointer, weight, width in run.own
    ]
