"""Weights in the order in which the kernels read them: (pair of tiles, panel, k, vector, lane), padding zero.

A packing is a table of jobs, made once for a kernel and its sizes; a run fills in addresses and hands it to a compiled
loop. A job brings one vector of units of one gate to its place, for all k:

    for k, lane:  to[k, lane] (+)= from[lane, k], or 0 where there is no such unit

Jobs are in the order of their places, so that the vectors of a panel, which lie between each other, are written while
it is in the cache.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from llvmlite import ir

from cellwise.backends.cpu.code import I64, Code, Value
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES, Group, groups_of
from cellwise.plan.program import MatmulTerm, Program, Stage, Width


@dataclass(frozen=True)
class Job:
    """Places are in bytes, strides in elements. `units`: how many there are from the first lane on, maybe none.

    `low`: whether it is what bfloat16 leaves of a weight that is packed (`three_pack.py`), not what it holds.
    """

    to: int
    source: int
    weight: int  # the number of the weight that is the source
    length: int
    to_k: int
    from_unit: int
    from_k: int
    units: int
    add: int
    low: int = 0


COLUMNS = tuple(field.name for field in fields(Job))


def emit_pack(element_bytes: int, target: Target) -> ir.Module:
    """void pack(int64 *jobs, int64 *given): do the jobs given[0] to given[1]; to given[2], from given[3 + weight]."""
    return _PackCode("pack", element_bytes, target).emit()


class _PackCode(Code):
    """The loop over the jobs."""

    def emit(self) -> ir.Module:
        b, whole = self.b, self.whole
        jobs, given = self.function.args
        start = self.load_whole(given, 2)
        with self.loop("job", self.load_whole(given, 1), first=self.load_whole(given, 0)) as number:
            table = self.at(jobs, b.mul(number, whole(len(COLUMNS))), I64)
            job = {name: self.load_whole(table, i, name) for i, name in enumerate(COLUMNS)}
            weight = self.load_whole(given, b.add(job["weight"], whole(3)))
            to = b.inttoptr(b.add(start, job["to"]), ir.PointerType())
            source = b.inttoptr(b.add(weight, job["source"]), ir.PointerType())
            self._singly(job, to, source, self._blocks(job, to, source))
        b.ret_void()
        return self.module

    def _blocks(self, job: dict[str, Value], to: Value, source: Value) -> Value:
        """As many k as make whole vectors, where those of a unit lie side by side and every lane has a unit.

        A square of them is read row by row and turned in registers, which takes fewer instructions than number by
        number. Returns the first k that is left.
        """
        b, whole, lanes = self.b, self.whole, self.v.lanes
        is_square = b.icmp_signed(">=", job["units"], whole(lanes))
        is_square = b.and_(is_square, b.icmp_signed("==", job["from_k"], whole(1)))
        is_square = b.and_(is_square, b.icmp_signed("==", job["add"], whole(0)))
        length = job["length"]
        end = b.select(is_square, b.sub(length, b.urem(length, whole(lanes))), whole(0))
        with self.loop("block", end, step=lanes) as k:
            first = self.at(source, k)
            rows = [self.load(self.at(first, b.mul(whole(lane), job["from_unit"]))) for lane in range(lanes)]
            for number, row in enumerate(self._turned(rows)):
                self.store(row, self.at(to, b.mul(b.add(k, whole(number)), job["to_k"])))
        return end

    def _turned(self, rows: list[Value]) -> list[Value]:
        """The columns of a square: each round exchanges a binary digit of the row's number with the column's."""
        b, lanes = self.b, self.v.lanes
        index = ir.IntType(32)
        digit = 1
        while digit < lanes:
            low = [j + lanes - digit if j & digit else j for j in range(lanes)]
            high = [j + lanes if j & digit else j + digit for j in range(lanes)]
            masks = [ir.Constant(ir.VectorType(index, lanes), places) for places in (low, high)]
            rows = [
                b.shuffle_vector(rows[i & ~digit], rows[i | digit], masks[bool(i & digit)])
                for i in range(lanes)
            ]
            digit *= 2
        return rows

    def _singly(self, job: dict[str, Value], to: Value, source: Value, first: Value) -> None:
        """The k from the first on, one vector of units after the other."""
        b, v, whole = self.b, self.v, self.whole
        nothing, valid = v.number(0.0), job["units"]
        is_there = [b.icmp_signed("<", whole(lane), valid) for lane in range(v.lanes)]
        # A lane without a unit reads the first unit's number, and then is set to zero.
        units = [
            b.select(there, b.mul(whole(lane), job["from_unit"]), whole(0))
            for lane, there in enumerate(is_there)
        ]
        mask = ir.Constant(ir.VectorType(ir.IntType(1), v.lanes), ir.Undefined)
        for lane, there in enumerate(is_there):
            mask = b.insert_element(mask, there, ir.Constant(ir.IntType(32), lane))
        any_unit = b.icmp_signed(">", valid, whole(0))
        side_by_side = b.icmp_signed("==", job["from_unit"], whole(1))
        side_by_side = b.and_(side_by_side, b.icmp_signed(">=", valid, whole(v.lanes)))
        adds = b.icmp_signed("!=", job["add"], whole(0))
        with self.loop("k", job["length"], first=first) as k:
            place = self.at(to, b.mul(k, job["to_k"]))
            with b.if_else(any_unit) as (some, none):
                with some:
                    row = self.at(source, b.mul(k, job["from_k"]))
                    value = self._gathered(row, units, mask, side_by_side)
                    with b.if_else(adds) as (adding, placing):
                        with adding:
                            self.store(b.fadd(value, self.load(place)), place)
                        with placing:
                            self.store(value, place)
                with none, b.if_then(b.not_(adds)):
                    self.store(nothing, place)

    def _gathered(self, row: Value, units: list[Value], mask: Value, side_by_side: Value) -> Value:
        """The numbers of all lanes' units, zero where there is none."""
        b, v = self.b, self.v
        with b.if_else(side_by_side) as (together, apart):
            with together:
                loaded, at_once = self.load(row), b.block
            with apart:
                value = ir.Constant(v.vector, ir.Undefined)
                for lane, unit in enumerate(units):
                    one = self.load_one(self.at(row, unit))
                    value = b.insert_element(value, one, ir.Constant(ir.IntType(32), lane))
                value, one_by_one = b.select(mask, value, v.number(0.0)), b.block
        found = b.phi(v.vector)
        found.add_incoming(loaded, at_once)
        found.add_incoming(value, one_by_one)
        return found


@dataclass(frozen=True, eq=False)
class Packing:
    """What is packed for a kernel of given sizes. `places`: offsets in bytes, in the order of the kernel's pointers.

    The first `placing` jobs may be done in any order, in several threads; then the others, which add to what is there.
    `as_they_are`: of pointers behind those, each to a weight as it lies, the number of the weight; None of one to none.
    """

    elements: int
    places: tuple[int, ...]
    jobs: np.ndarray
    placing: int
    as_they_are: tuple[int | None, ...] = ()

    @cached_property
    def address(self) -> int:
        """Where the jobs stand."""
        return int(self.jobs.ctypes.data)


class Packer:
    """Plans the packing of a program's weights.

    Args:
        rows: for each stem the gates whose rows it has, one after the other.
        lengths: D, H and P.
        stems: the weights that there are; biases may be absent.
    """

    source_bytes: int | None = None  # of a number of a weight, if it is not what is packed
    parts = 1  # how often a weight is packed

    def __init__(
        self,
        program: Program,
        target: Target,
        element_bytes: int,
        rows: Mapping[str, Sequence[str]],
        lengths: Mapping[Width, int],
        stems: Sequence[str],
    ) -> None:
        self.rows, self.lengths, self.stems = rows, lengths, tuple(stems)
        self.bytes, self.lanes = element_bytes, target.lanes(element_bytes)
        self.elements = 0
        self.places: list[int] = []
        self.jobs: list[Job] = []
        for stage in program.all_stages:
            pairs = -(-lengths[stage.width] // (TILES * self.lanes))
            for group in groups_of(stage, target):
                for term in group.terms:
                    self._weights(stage, group, term, pairs)
                self._biases(stage, group, pairs)

    def plan(self) -> Packing:
        jobs = sorted(self.jobs, key=lambda job: (job.add, job.to))
        table = np.array([[getattr(job, name) for name in COLUMNS] for job in jobs], np.int64)
        return Packing(
            self.elements,
            tuple(place * self.bytes for place in self.places),
            table.reshape(-1, len(COLUMNS)),
            sum(not job.add for job in jobs),
        )

    def _weights(self, stage: Stage, group: Group, term: MatmulTerm, pairs: int) -> None:
        block = term.weight
        gates, units, length = self.rows[block.stem], self.lengths[stage.width], self._length(term)
        row = units if block.transposed else length  # how long a row of the weight is
        height = length if block.transposed else units  # how many rows a gate has
        from_unit, from_k = (1, row) if block.transposed else (row, 1)
        start = self._take(group, pairs, self.parts * self.steps(length))
        part = pairs * group.vectors * self.steps(length) * self.lanes
        for low, accumulator in itertools.product(range(self.parts), group.accumulators):
            gate = gates.index(block.gates[term.accumulators.index(accumulator)])
            first, begin = gate * height * row, start + low * part
            self._vectors(
                group, accumulator, pairs, begin, length, units, block.stem, first, from_unit, from_k, low=low
            )

    def _biases(self, stage: Stage, group: Group, pairs: int) -> None:
        units = self.lengths[stage.width]
        start = self._take(group, pairs, 1)
        for accumulator in group.accumulators:
            terms = [term for term in stage.biases[accumulator] if term[0] in self.stems]
            for number, (stem, gate) in enumerate(terms):
                first = self.rows[stem].index(gate) * units
                self._vectors(group, accumulator, pairs, start, 1, units, stem, first, 1, 0, add=number > 0)
            if not terms:
                self._vectors(group, accumulator, pairs, start, 1, 0, self.stems[0], 0, 0, 0)

    def steps(self, length: int) -> int:
        """How many vectors of a unit's lanes hold so many weights."""
        return length

    def _take(self, group: Group, pairs: int, steps: int) -> int:
        """Room for so many times the vectors of a group, where no one else's are."""
        start = self.elements
        self.places.append(start)
        self.elements += pairs * group.vectors * steps * self.lanes
        return start

    def _vectors(
        self,
        group: Group,
        accumulator: int,
        pairs: int,
        start: int,
        length: int,
        units: int,
        stem: str,
        first: int,
        from_unit: int,
        from_k: int,
        add: bool = False,
        low: int = 0,
    ) -> None:
        """The jobs for the two tiles of one accumulator, from element `first` of a weight."""
        wide = group.width * self.lanes
        steps = self.steps(length) if from_k else 1  # of a bias there is one
        for tile in range(TILES):
            panel, vector = group.place(accumulator, tile)
            to = start + panel * steps * wide + vector * self.lanes
            before = tile * self.lanes
            source = first + before * from_unit
            for pair in range(pairs):
                begin = pair * TILES * self.lanes  # of units
                job = Job(
                    to=(to + pair * group.panels * steps * wide) * self.bytes,
                    source=(source + begin * from_unit) * (self.source_bytes or self.bytes),
                    weight=self.stems.index(stem),
                    length=length,
                    to_k=wide,
                    from_unit=from_unit,
                    from_k=from_k,
                    units=units - before - begin,
                    add=int(add),
                    low=low,
                )
                self.jobs.append(job)

    def _length(self, term: MatmulTerm) -> int:
        return self.lengths[term.operand.buffer.width]
