"""What all units of a row give together, and what is one number of each row, in the kernel of a program.

While a stage goes through the tiles of units, each reduction has a vector for each row to which each tile adds its own;
units of padding add what changes nothing. When all tiles are done, the lanes of that vector are added up, in an order
that depends on their number alone. Numbers of a row are computed row by row, as vectors whose lanes are all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from llvmlite import ir

from cellwise.backends.cpu.code import Value
from cellwise.backends.cpu.vectors import LOWERINGS, Lanes
from cellwise.graph import Node, Shape
from cellwise.graph.ops import CONSTANT
from cellwise.passes.differentiate import SHARE
from cellwise.plan.program import Stage, StorageClass

if TYPE_CHECKING:
    from cellwise.backends.cpu.kernel import Emitter

# By reduction: what changes nothing, and how two vectors become one.
NEUTRAL = {"sum": 0.0, "mean": 0.0, "amax": -math.inf}
TOGETHER: dict[str, Callable[[Lanes, Value, Value], Value]] = {
    "sum": lambda v, a, b: v.b.fadd(a, b),
    "mean": lambda v, a, b: v.b.fadd(a, b),
    "amax": lambda v, a, b: v.call("maximum", a, b),
}
_I32 = ir.IntType(32)
# Rows whose values are added up in the kernel's own type before they are added to a sum in float64; and of a block.
SUMMED = 32


class Reductions:
    """The part of a kernel that is about rows as a whole."""

    def __init__(self, kernel: Emitter) -> None:
        self.kernel = kernel

    def stages(self) -> None:
        """All stages of a step. Those without products go through a few rows at a time, one stage after the other: what
        these need then stays in a near cache.
        """
        k = self.kernel
        for together in self._together():
            if together[0][1].accumulators:
                self._stage(*together[0])
                continue
            with k.loop(f"s{together[0][0]}.block", k.active, step=SUMMED) as first:
                end = k.b.add(first, k.whole(SUMMED))
                end = k.b.select(k.b.icmp_signed("<", end, k.active), end, k.active)
                k.block = first, end
                for number, stage in together:
                    self._stage(number, stage)
            k.block = k.whole(0), k.active

    def _together(self) -> list[list[tuple[int, Stage]]]:
        """The stages with their numbers; those without products that follow each other as one list."""
        found: list[list[tuple[int, Stage]]] = []
        for number, stage in enumerate(self.kernel.program.stages):
            if found and not stage.accumulators and not found[-1][-1][1].accumulators:
                found[-1].append((number, stage))
            else:
                found.append([(number, stage)])
        return found

    def _stage(self, number: int, stage: Stage) -> None:
        k = self.kernel
        self._rows(number, stage)
        if not stage.has_units:
            return
        adds_rows = any(slot.buffer.storage is StorageClass.REDUCTION for _, slot in stage.writes)
        if stage.accumulators or adds_rows:
            self._clear(number, stage)
            k.stage(number, stage)
        else:
            self._row_by_row(number, stage)

    def _rows(self, number: int, stage: Stage) -> None:
        """The numbers of each row that a stage begins with."""
        k = self.kernel
        first, end = k.block
        if stage.row_writes:
            with k.loop(f"s{number}.row", end, first=first) as row:
                value_of = self._values(stage, row)
                for node, slot in stage.row_writes:
                    k.write_number(value_of(node), slot, row)

    def _clear(self, number: int, stage: Stage) -> None:
        """Nothing in what a stage adds up."""
        k = self.kernel
        first, end = k.block
        if stage.reductions:
            with k.loop(f"s{number}.clear", end, first=first) as row:
                for node, slot in stage.reductions:
                    k.write(k.v.number(NEUTRAL[node.op.name]), slot, row, k.whole(0))

    def _row_by_row(self, number: int, stage: Stage) -> None:
        """A stage whose units follow each other, so that what it adds up stays in registers."""
        k = self.kernel
        (first, end), tiles = k.block, k.b.sdiv(k.padded(stage.width), k.whole(k.v.lanes))
        with k.loop(f"s{number}.row", end, first=first) as row:
            totals: list[Value] = [k.v.number(NEUTRAL[node.op.name]) for node, _ in stage.reductions]
            with k.summing(f"s{number}.tile", tiles, totals) as (tile, running, following):
                unit = k.b.mul(tile, k.whole(k.v.lanes))
                if k.ahead is not None:
                    k.ahead.find(tile)
                self.tile(stage, unit)
                value_of = k.equations(stage, row, unit, k.whole(0))
                for total, (node, _) in zip(running, stage.reductions, strict=True):
                    following.append(TOGETHER[node.op.name](k.v, total, self._masked(node, value_of)))
            for total, (_, slot) in zip(totals, stage.reductions, strict=True):
                k.write(total, slot, row, k.whole(0))

    def tile(self, stage: Stage, unit: Value) -> None:
        """From here on it is about the units of a tile, from this one on."""
        k = self.kernel
        if not stage.reductions:
            return
        b, v = k.b, k.v
        left = v.splat(b.trunc(b.sub(k.size[stage.width.value], unit), v.integer))
        self.is_unit = b.icmp_signed("<", v.counted(), left)

    def add(self, stage: Stage, row: Value, value_of: Callable[[Node], Value]) -> None:
        """Add the units of the tile to what the row has of each reduction."""
        k = self.kernel
        for node, slot in stage.reductions:
            before = k.read(slot, row, k.whole(0))
            total = TOGETHER[node.op.name](k.v, before, self._masked(node, value_of))
            k.write(total, slot, row, k.whole(0))

    def _masked(self, node: Node, value_of: Callable[[Node], Value]) -> Value:
        """What a reduction takes in of the tile; of padding what changes nothing."""
        k = self.kernel
        k.comment(node)
        return k.b.select(self.is_unit, value_of(node.inputs[0]), k.v.number(NEUTRAL[node.op.name]))

    def _values(self, stage: Stage, row: Value) -> Callable[[Node], Value]:
        """The value of what is a number of this row, or of all, each once."""
        k = self.kernel
        v, inside = k.v, set(stage.row_nodes)
        partial = {
            node: slot for each in k.program.stages for node, slot in each.reductions if node in inside
        }

        @cache
        def value_of(node: Node) -> Value:
            if node.op is CONSTANT:
                assert isinstance(node.attribute, float)
                return v.number(node.attribute)
            if node in partial:
                return self._finished(node, k.read(partial[node], row, k.whole(0)))
            # What is made of numbers alone is no number of a row, but is computed with these.
            if node in inside or node.is_mask or (node.shape is Shape.NUMBER and node.inputs):
                operands = [value_of(i) for i in node.inputs]
                k.comment(node)
                if node.op is SHARE:
                    return k.b.fdiv(operands[0], self._units())
                return LOWERINGS[node.op.name](v, *operands)
            return k.read_number(k.place(node), row)

        return value_of

    def _finished(self, node: Node, lanes: Value) -> Value:
        """A reduction from the vector of its row: in each lane all of them together."""
        k, v = self.kernel, self.kernel.v
        k.comment(node)
        half = v.lanes // 2
        while half:
            turned = [ir.Constant(_I32, lane ^ half) for lane in range(v.lanes)]
            order = ir.Constant(ir.VectorType(_I32, v.lanes), turned)
            other = k.b.shuffle_vector(lanes, ir.Constant(v.vector, ir.Undefined), order)
            lanes, half = TOGETHER[node.op.name](v, lanes, other), half // 2
        return k.b.fdiv(lanes, self._units()) if node.op.name == "mean" else lanes

    def _units(self) -> Value:
        """H, in each lane."""
        k = self.kernel
        return k.v.splat(k.b.sitofp(k.size["H"], k.v.element))
