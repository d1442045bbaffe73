"""What all units of a row give together, and what is one number of each row, in the kernel of a program.

While a stage goes through the tiles of units, each reduction has a vector for each row to which each tile adds its own;
units of padding add what changes nothing. When all tiles are done, the lanes of that vector are added up, in an order
that depends on their number alone. Numbers of a row are computed row by row, as vectors whose lanes are all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from llvmlite import ir

from cellwise.backends.cpu.code import Value
from cellwise.backends.cpu.vectors import LOWERINGS, Lanes
from cellwise.graph import Node, Shape
from cellwise.graph.ops import CONSTANT
from cellwise.passes.differentiate import SHARE
from cellwise.plan.program import Stage

if TYPE_CHECKING:
    from cellwise.backends.cpu.kernel import Emitter

# By reduction: what changes nothing, and how two vectors become one.
_NEUTRAL = {"sum": 0.0, "mean": 0.0, "amax": -math.inf}
TOGETHER: dict[str, Callable[[Lanes, Value, Value], Value]] = {
    "sum": lambda v, a, b: v.b.fadd(a, b),
    "mean": lambda v, a, b: v.b.fadd(a, b),
    "amax": lambda v, a, b: v.call("maximum", a, b),
}
_I32 = ir.IntType(32)


class Reductions:
    """The part of a kernel that is about rows as a whole."""

    def __init__(self, kernel: Emitter) -> None:
        self.kernel = kernel

    def begin(self, number: int, stage: Stage) -> None:
        """The numbers of each row that a stage begins with, and nothing in what it adds up."""
        k = self.kernel
        if not (stage.row_writes or stage.reductions):
            return
        with k.loop(f"s{number}.row", k.active) as row:
            value_of = self._values(stage, row)
            for node, slot in stage.row_writes:
                k.write_number(value_of(node), slot, row)
            for node, slot in stage.reductions:
                k.write(k.v.number(_NEUTRAL[node.op.name]), slot, row, k.whole(0))

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
            k._comment(node)
            neutral = k.v.number(_NEUTRAL[node.op.name])
            value = k.b.select(self.is_unit, value_of(node.inputs[0]), neutral)
            total = TOGETHER[node.op.name](k.v, k.read(slot, row, k.whole(0)), value)
            k.write(total, slot, row, k.whole(0))

    def _values(self, stage: Stage, row: Value) -> Callable[[Node], Value]:
        """The value of what is a number of this row, or of all, each once."""
        k = self.kernel
        v, known, inside = k.v, dict[Node, Value](), set(stage.row_nodes)
        partial = {
            node: slot for each in k.program.stages for node, slot in each.reductions if node in inside
        }

        def value_of(node: Node) -> Value:
            if node not in known:
                known[node] = find(node)
            return known[node]

        def find(node: Node) -> Value:
            if node.op is CONSTANT:
                assert isinstance(node.attribute, float)
                return v.number(node.attribute)
            if node in partial:
                return self._finished(node, k.read(partial[node], row, k.whole(0)))
            # What is made of numbers alone is no number of a row, but is computed with these.
            if node in inside or node.is_mask or (node.shape is Shape.NUMBER and node.inputs):
                operands = [value_of(i) for i in node.inputs]
                k._comment(node)
                if node.op is SHARE:
                    return k.b.fdiv(operands[0], self._units())
                return LOWERINGS[node.op.name](v, *operands)
            return k.read_number(k.place(node), row)

        return value_of

    def _finished(self, node: Node, lanes: Value) -> Value:
        """A reduction from the vector of its row: in each lane all of them together."""
        k, v = self.kernel, self.kernel.v
        k._comment(node)
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
