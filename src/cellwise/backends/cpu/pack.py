"""Weights in the order in which the kernels read them: (pair of tiles, panel, k, vector, lane), padding zero.

A packing is a table of jobs, made once for a kernel and its sizes; a run fills in addresses and hands it to a compiled
loop. A job brings one vector of units of one gate to its place, for all pairs and all k:

    for pair, k, lane:  to[pair, k, lane] (+)= from[pair, lane, k], or 0 where there is no such unit
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from llvmlite import ir

from cellwise.backends.cpu.code import I64, Code
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES, Group, groups_of
from cellwise.plan.program import MatmulTerm, Program, Stage, Width


@dataclass(frozen=True)
class Job:
    """Places are in bytes, strides in elements. `units`: how many there are from the first pair's first lane on."""

    to: int
    source: int
    weight: int  # the number of the weight that is the source
    pairs: int
    length: int
    to_pair: int
    to_k: int
    from_pair: int
    from_unit: int
    from_k: int
    units: int
    add: int


COLUMNS = tuple(field.name for field in fields(Job))


def emit_pack(element_bytes: int, target: Target) -> ir.Module:
    """void pack(int64 *jobs, int64 *given): do the jobs given[0] to given[1]; to given[2], from given[3 + weight]."""
    code = Code("pack", element_bytes, target)
    b, v, whole = code.b, code.v, code.whole
    jobs, given = code.function.args
    nothing = v.number(0.0)
    start = code.load_whole(given, 2)
    with code.loop("job", code.load_whole(given, 1), first=code.load_whole(given, 0)) as number:
        table = code.at(jobs, b.mul(number, whole(len(COLUMNS))), I64)
        job = {name: code.load_whole(table, i, name) for i, name in enumerate(COLUMNS)}
        weight = code.load_whole(given, b.add(job["weight"], whole(3)))
        to = b.inttoptr(b.add(start, job["to"]), ir.PointerType())
        source = b.inttoptr(b.add(weight, job["source"]), ir.PointerType())
        with code.loop("pair", job["pairs"]) as pair:
            valid = b.sub(job["units"], b.mul(pair, whole(TILES * v.lanes)))
            into = code.at(to, b.mul(pair, job["to_pair"]))
            out_of = code.at(source, b.mul(pair, job["from_pair"]))
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
            with code.loop("k", job["length"]) as k:
                place = code.at(into, b.mul(k, job["to_k"]))
                with b.if_else(any_unit) as (some, none):
                    with some:
                        row = code.at(out_of, b.mul(k, job["from_k"]))
                        value = ir.Constant(v.vector, ir.Undefined)
                        for lane, unit in enumerate(units):
                            one = code.load_one(code.at(row, unit))
                            value = b.insert_element(value, one, ir.Constant(ir.IntType(32), lane))
                        value = b.select(mask, value, nothing)
                        with b.if_else(b.icmp_signed("!=", job["add"], whole(0))) as (adding, placing):
                            with adding:
                                code.store(b.fadd(value, code.load(place)), place)
                            with placing:
                                code.store(value, place)
                    with none, b.if_then(b.icmp_signed("==", job["add"], whole(0))):
                        code.store(nothing, place)
    b.ret_void()
    return code.module


@dataclass(frozen=True, eq=False)
class Packing:
    """What is packed for a kernel of given sizes. `places`: offsets in bytes, in the order of the kernel's pointers.

    The first `placing` jobs may be done in any order, in several threads; then the others, which add to what is there.
    """

    elements: int
    places: tuple[int, ...]
    jobs: np.ndarray
    placing: int

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
        jobs = sorted(self.jobs, key=lambda job: job.add)
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
        start = self._take(group, pairs, length)
        for accumulator in group.accumulators:
            gate = gates.index(block.gates[term.accumulators.index(accumulator)])
            first = gate * height * row
            self._vectors(
                group, accumulator, pairs, start, length, units, block.stem, first, from_unit, from_k
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

    def _take(self, group: Group, pairs: int, length: int) -> int:
        """Room for a group's vectors of this length, where no one else's are."""
        start = self.elements
        self.places.append(start)
        self.elements += pairs * group.vectors * self.steps(length) * self.lanes
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
    ) -> None:
        """The jobs for the two tiles of one accumulator, from element `first` of a weight."""
        wide = group.width * self.lanes
        for tile in range(TILES):
            panel, vector = group.place(accumulator, tile)
            to = start + panel * self.steps(length) * wide + vector * self.lanes
            before = tile * self.lanes
            source = first + before * from_unit
            job = Job(
                to=to * self.bytes,
                source=source * (self.source_bytes or self.bytes),
                weight=self.stems.index(stem),
                pairs=pairs,
                length=length,
                to_pair=group.panels * self.steps(length) * wide,
                to_k=wide,
                from_pair=TILES * self.lanes * from_unit,
                from_unit=from_unit,
                from_k=from_k,
                units=units - before,
                add=int(add),
            )
            self.jobs.append(job)

    def _length(self, term: MatmulTerm) -> int:
        return self.lengths[term.operand.buffer.width]
