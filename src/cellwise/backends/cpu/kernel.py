"""From a program to LLVM: one function that runs all steps of time for some of the batch's rows.

    void kernel(void **pointers, int64 *sizes)

`pointers` are the program's arrays in order, then per segment its packed weights, per stage its packed biases (both
in the order of the stages), then room for accumulators, the steps' offsets and the resets. `sizes` are `SIZES`.

A stage goes through tiles of units. For each tile the rows' products are summed in registers, a block of rows at a
time, and then the pointwise equations run on the sums row by row, while they are in the nearest cache. Rows of units
are padded to whole vectors (`padded`), so that there are no remainders in them; padding is never read as an operand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from llvmlite import ir

from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.vectors import LOWERINGS, Lanes
from cellwise.graph import Node
from cellwise.graph.ops import CONSTANT
from cellwise.plan.program import Place, Program, ProgramStage, Ref, Segment

SIZES = ("steps", "D", "H", "padded", "first_row", "rows", "backwards", "zero_before", "zero_after")

_I64, _I8, _POINTER = ir.IntType(64), ir.IntType(8), ir.PointerType()
Value: TypeAlias = ir.Value


@dataclass(frozen=True)
class Blocking:
    """How many rows and how many tiles of units one pass of a product holds in registers."""

    rows: int
    tiles: int


def blocking(accumulators: int, room: int) -> Blocking:
    """Few accumulators per unit take several tiles of units, so that each loaded number meets several others."""
    tiles = max(1, 4 // accumulators)
    return Blocking(max(1, room // (accumulators * tiles)), tiles)


class Emitter:
    """Emits the kernel of one program for one element type and target."""

    def __init__(self, program: Program, element_bytes: int, target: Target) -> None:
        self.program = program
        self.element_bytes = element_bytes
        self.target = target
        self.module = ir.Module(name=program.name)
        self.module.triple = target.triple
        kind = ir.FunctionType(ir.VoidType(), [_POINTER, _POINTER])
        self.function = ir.Function(self.module, kind, program.name)
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.v = Lanes(self.b, element_bytes, target.lanes(element_bytes))

    # --- small words --------------------------------------------------------------------------------------------

    def whole(self, value: int) -> Value:
        return ir.Constant(_I64, value)

    def at(self, pointer: Value, index: Value, kind: ir.Type | None = None) -> Value:
        return self.b.gep(pointer, [index], inbounds=True, source_etype=kind or self.v.element)

    def load(self, pointer: Value) -> Value:
        return self.b.load(pointer, typ=self.v.vector, align=self.element_bytes)

    def store(self, value: Value, pointer: Value) -> None:
        self.b.store(value, pointer, align=self.element_bytes)

    @contextmanager
    def loop(self, name: str, count: Value, first: Value | None = None, step: int = 1) -> Iterator[Value]:
        """for index in range(first, count, step)"""
        b = self.b
        start = b.block
        head, body = b.append_basic_block(f"{name}.head"), b.append_basic_block(name)
        after = b.append_basic_block(f"{name}.after")
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(_I64, name)
        index.add_incoming(first or self.whole(0), start)
        b.cbranch(b.icmp_signed("<", index, count), body, after)
        b.position_at_end(body)
        yield index
        index.add_incoming(b.add(index, self.whole(step)), b.block)
        b.branch(head)
        b.position_at_end(after)

    # --- the kernel ---------------------------------------------------------------------------------------------

    def emit(self) -> ir.Module:
        b = self.b
        pointers, sizes = self.function.args
        self.size = {
            name: b.load(self.at(sizes, self.whole(i), _I64), typ=_I64, name=name)
            for i, name in enumerate(SIZES)
        }
        take = iter(range(1_000_000))

        def pointer(name: str) -> Value:
            return b.load(self.at(pointers, self.whole(next(take)), _POINTER), typ=_POINTER, name=name)

        self.arrays = {array.name: pointer(array.name.replace(" ", "_")) for array in self.program.arrays}
        self.weights = {
            (stage, segment): pointer("weights")
            for stage in self.program.stages
            for segment in stage.segments
        }
        self.biases = {stage: pointer("biases") for stage in self.program.stages if stage.accumulators}
        self.room, self.offsets, self.resets = pointer("room"), pointer("offsets"), pointer("resets")
        self.tiles = b.sdiv(self.size["padded"], self.whole(self.v.lanes))
        with self.loop("step", self.size["steps"]) as count:
            last = b.sub(b.sub(self.size["steps"], self.whole(1)), count)
            t = b.select(b.icmp_signed("!=", self.size["backwards"], self.whole(0)), last, count)
            self._step(t)
        b.ret_void()
        return self.module

    def _step(self, t: Value) -> None:
        b = self.b
        offset = b.load(self.at(self.offsets, t, _I64), typ=_I64)
        after = b.load(self.at(self.offsets, b.add(t, self.whole(1)), _I64), typ=_I64)
        here = b.sub(b.sub(after, offset), self.size["first_row"])
        here = b.select(b.icmp_signed("<", here, self.whole(0)), self.whole(0), here)
        self.active = b.select(b.icmp_signed("<", here, self.size["rows"]), here, self.size["rows"])
        self.first = b.add(offset, self.size["first_row"])  # this thread's first row among all steps' rows
        self._zero_states("zero_before")
        for number, stage in enumerate(self.program.stages):
            self._stage(number, stage)
        self._carry()
        self._zero_states("zero_after")

    def _zero_states(self, when: str) -> None:
        b = self.b
        with (
            b.if_then(b.icmp_signed("!=", self.size[when], self.whole(0))),
            self.loop(when, self.active) as row,
        ):
            mark = b.load(self.at(self.resets, b.add(self.first, row), _I8), typ=_I8)
            with b.if_then(b.icmp_signed("!=", mark, ir.Constant(_I8, 0)), likely=False):
                for state in self.program.states:
                    with self.loop("unit", self.size["padded"], step=self.v.lanes) as unit:
                        self.store(self.v.number(0.0), self.at(self.row(Ref(state), row), unit))

    def _carry(self) -> None:
        """The new states become the states, for the rows that had this step."""
        new = self.program.array("new")
        with self.loop("carry", self.active) as row:
            for column, state in enumerate(self.program.states):
                source, target = self.row(Ref(new, column), row), self.row(Ref(state), row)
                with self.loop("unit", self.size["padded"], step=self.v.lanes) as unit:
                    self.store(self.load(self.at(source, unit)), self.at(target, unit))

    def row(self, ref: Ref, row: Value) -> Value:
        """The address of a row of an array at this step."""
        b, place = self.b, ref.array.place
        if place is Place.INPUT:
            return self.at(self.arrays["x"], b.mul(b.add(self.first, row), self.size["D"]))
        base = self.arrays[ref.array.name]
        if place is Place.UNITS:
            return base
        if place is Place.STATE:
            return self.at(base, b.mul(b.add(self.size["first_row"], row), self.size["padded"]))
        number = {
            Place.STEPS: lambda: b.add(
                b.mul(b.add(self.first, row), self.whole(ref.array.columns)), self.whole(ref.column)
            ),
            Place.ROWS: lambda: b.add(b.mul(row, self.whole(ref.array.columns)), self.whole(ref.column)),
            Place.SUM: lambda: self.whole(ref.column),
        }[place]()
        return self.at(base, b.mul(number, self.size["padded"]))

    # --- a stage ------------------------------------------------------------------------------------------------

    def _stage(self, number: int, stage: ProgramStage) -> None:
        b = self.b
        if not stage.accumulators:
            with self.loop(f"s{number}.tile", self.tiles) as tile:
                self._pointwise(number, stage, tile, self.whole(0))
            return
        block = blocking(len(stage.accumulators), self.target.accumulators)
        wide = b.sub(self.tiles, b.srem(self.tiles, self.whole(block.tiles)))
        with self.loop(f"s{number}.tiles", wide, step=block.tiles) as tile:
            self._products(number, stage, tile, block)
            with self.loop(f"s{number}.each", self.whole(block.tiles)) as each:
                self._pointwise(number, stage, b.add(tile, each), each)
        if block.tiles > 1:
            narrow = Blocking(min(6, self.target.accumulators // len(stage.accumulators)), 1)
            with self.loop(f"s{number}.tile", self.tiles, first=wide) as tile:
                self._products(number, stage, tile, narrow)
                self._pointwise(number, stage, tile, self.whole(0))

    def _products(self, number: int, stage: ProgramStage, tile: Value, block: Blocking) -> None:
        """Fill the room for accumulators for all rows: blocks of rows, ever smaller ones for what is left."""
        b = self.b
        done = self.whole(0)
        for rows in (block.rows, *(size for size in (2, 1) if size < block.rows)):
            left = b.sub(self.active, done)
            end = b.sub(self.active, b.srem(left, self.whole(rows)))
            with self.loop(f"s{number}.rows{rows}", end, first=done, step=rows) as row:
                self._block(number, stage, tile, row, Blocking(rows, block.tiles))
            done = end

    def _block(self, number: int, stage: ProgramStage, tile: Value, row: Value, block: Blocking) -> None:
        """Sum the products of a block of rows and tiles in registers, and store the sums."""
        count = len(stage.accumulators)
        places = [(u, r, a) for u in range(block.tiles) for r in range(block.rows) for a in range(count)]
        bias = {
            (u, a): self.load(self.at(self.biases[stage], self._packed(tile, u, self.whole(1), count, a)))
            for u in range(block.tiles)
            for a in range(count)
        }
        sums = {place: bias[place[0], place[2]] for place in places}
        for segment in stage.segments:
            self._segment(f"s{number}.k", stage, segment, tile, row, block, sums)
        for (u, r, a), value in sums.items():
            self.store(value, self._sum_address(self.whole(u), self.b.add(row, self.whole(r)), count, a))

    def _packed(self, tile: Value, u: int, length: Value, count: int, place: int = 0) -> Value:
        """The index of a vector in packed weights: (tile, k, accumulator, lane)."""
        first = self.b.mul(self.b.add(tile, self.whole(u)), length)
        vector = self.b.add(self.b.mul(first, self.whole(count)), self.whole(place))
        return self.b.mul(vector, self.whole(self.v.lanes))

    def _segment(
        self,
        name: str,
        stage: ProgramStage,
        segment: Segment,
        tile: Value,
        row: Value,
        block: Blocking,
        sums: dict[tuple[int, int, int], Value],
    ) -> None:
        """Add one operand's products to the sums: a loop over its numbers, a fused multiply-add per register."""
        b, v = self.b, self.v
        length = self.size["D" if segment.operand.array.place is Place.INPUT else "H"]
        operands = [self.row(segment.operand, b.add(row, self.whole(r))) for r in range(block.rows)]
        used = segment.accumulators
        base = self.weights[stage, segment]
        weights = [self.at(base, self._packed(tile, u, length, len(used))) for u in range(block.tiles)]
        mine = [place for place in sums if place[2] in used]
        start = b.block
        head, body, after = (b.append_basic_block(f"{name}.{part}") for part in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        k = b.phi(_I64)
        k.add_incoming(self.whole(0), start)
        running = {place: b.phi(v.vector) for place in mine}
        for place in mine:
            running[place].add_incoming(sums[place], start)
        b.cbranch(b.icmp_signed("<", k, length), body, after)
        b.position_at_end(body)
        vector = b.mul(k, self.whole(len(used) * v.lanes))
        many = [
            v.splat(b.load(self.at(pointer, k), typ=v.element, align=self.element_bytes))
            for pointer in operands
        ]
        added = {}
        for u in range(block.tiles):
            for order, a in enumerate(used):
                weight = self.load(self.at(weights[u], b.add(vector, self.whole(order * v.lanes))))
                for r in range(block.rows):
                    added[u, r, a] = v.fma(many[r], weight, running[u, r, a])
        k.add_incoming(b.add(k, self.whole(1)), b.block)
        for place in mine:
            running[place].add_incoming(added[place], b.block)
        b.branch(head)
        b.position_at_end(after)
        sums.update(running)

    def _sum_address(self, u: Value, row: Value, count: int, place: int) -> Value:
        b = self.b
        index = b.add(b.mul(u, self.size["rows"]), row)
        index = b.mul(b.add(b.mul(index, self.whole(count)), self.whole(place)), self.whole(self.v.lanes))
        return self.at(self.room, index)

    # --- pointwise ----------------------------------------------------------------------------------------------

    def _pointwise(self, number: int, stage: ProgramStage, tile: Value, u: Value) -> None:
        """The equations of a stage for one tile of units, row by row; sums over rows stay in registers."""
        b, v = self.b, self.v
        unit = b.mul(tile, self.whole(v.lanes))
        sums = [(node, ref) for node, ref in stage.writes if ref.array.place is Place.SUM]
        start = b.block
        head, body, after = (
            b.append_basic_block(f"s{number}.pointwise.{x}") for x in ("head", "body", "after")
        )
        addresses = [self.at(self.row(ref, self.whole(0)), unit) for _, ref in sums]
        before = [self.load(address) for address in addresses]
        b.branch(head)
        b.position_at_end(head)
        row = b.phi(_I64)
        row.add_incoming(self.whole(0), start)
        totals = [b.phi(v.vector) for _ in sums]
        for total, value in zip(totals, before, strict=True):
            total.add_incoming(value, start)
        b.cbranch(b.icmp_signed("<", row, self.active), body, after)
        b.position_at_end(body)
        value_of = self._values(stage, row, unit, u)
        for node in stage.nodes:
            value_of(node)
        for node, ref in stage.writes:
            if ref.array.place is not Place.SUM:
                self.store(value_of(node), self.at(self.row(ref, row), unit))
        added = [b.fadd(total, value_of(node)) for total, (node, _) in zip(totals, sums, strict=True)]
        row.add_incoming(b.add(row, self.whole(1)), b.block)
        for total, value in zip(totals, added, strict=True):
            total.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(after)
        for total, address in zip(totals, addresses, strict=True):
            self.store(total, address)

    def _values(self, stage: ProgramStage, row: Value, unit: Value, u: Value) -> Callable[[Node], Value]:
        """The value of any node in the present row and tile: summed, computed, read or a number, each once."""
        b, v = self.b, self.v
        known: dict[Node, Value] = {}
        inside = set(stage.nodes)
        sums = {node: place for place, node in enumerate(stage.accumulators)}

        def value_of(node: Node) -> Value:
            if node not in known:
                known[node] = find(node)
            return known[node]

        def find(node: Node) -> Value:
            if node.op is CONSTANT:
                assert isinstance(node.attribute, float)
                return v.number(node.attribute)
            if node in sums:
                return self.load(self._sum_address(u, row, len(sums), sums[node]))
            if node in inside or node.is_mask:
                return LOWERINGS[node.op.name](v, *(value_of(i) for i in node.inputs))
            ref = self.program.reads[node]
            if ref.array.place is Place.NUMBER:
                number = b.load(self.arrays[ref.array.name], typ=v.element, align=self.element_bytes)
                return v.splat(number)
            return self.load(self.at(self.row(ref, row), unit))

        return value_of


def emit(program: Program, element_bytes: int, target: Target) -> ir.Module:
    """The kernel of a program as an LLVM module."""
    return Emitter(program, element_bytes, target).emit()
