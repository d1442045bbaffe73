"""What all units of a row give together, and what is one number of each row, in the text of a kernel.

A thread adds up its own units, then the lanes of its warp that share a row, then the warps of its block by way of
shared memory: always in the same order. Whatever is one number of a row every thread of that row computes by itself;
its variable is an array over the rows of a thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cellwise.backends.cuda.expressions import literal, lowered
from cellwise.backends.cuda.text import c_name
from cellwise.graph import Node, Shape
from cellwise.graph.ops import CONSTANT
from cellwise.passes.differentiate import SHARE
from cellwise.plan.program import Program, Slot, Stage, StorageClass, Width

if TYPE_CHECKING:
    from cellwise.backends.cuda.frame import Frame

HELPERS = (Path(__file__).parent / "reductions.cuh").read_text()


@dataclass(frozen=True)
class Together:
    """How two values become one, what changes nothing, and who does it for lanes."""

    text: str
    neutral: float
    lanes: str


_SUM = Together("({0} + {1})", 0.0, "lanes_sum")
TOGETHER = {
    "sum": _SUM,
    "mean": _SUM,
    "amax": Together("greatest({0}, {1})", float("-inf"), "lanes_greatest"),
}


def reductions_of(program: Program) -> dict[Node, Slot]:
    """What a step adds up over units, and its column among all of that."""
    return {node: slot for stage in program.stages for node, slot in stage.reductions}


def numbers_made(stages: Iterable[Stage]) -> dict[Slot, None]:
    """The numbers of a row that stages compute for others."""
    found: dict[Slot, None] = {}
    for stage in stages:
        slots = (slot for _, slot in (*stage.row_writes, *stage.reductions))
        found |= {slot: None for slot in slots if slot.buffer.storage is StorageClass.SCRATCH}
    return found


def numbers_read(program: Program, stages: Iterable[Stage]) -> dict[Slot, None]:
    """The numbers of a row that the equations of stages want, those that they make among them."""
    found: dict[Slot, None] = {}
    partial = reductions_of(program)

    def look(node: Node, is_made: bool = False) -> None:
        slot = partial.get(node) if is_made else program.rows.get(node)
        slot = slot or program.reads.get(node)
        if slot is not None:
            if slot.buffer.width in (Width.ROW, Width.PARTIAL):
                found[slot] = None
        elif node.is_mask or node.shape in (Shape.ROWS, Shape.NUMBER):
            for each in node.inputs:
                look(each)

    for stage in stages:
        for node in stage.row_nodes:
            look(node, is_made=True)
        made = [*stage.nodes, *(node for node, _ in stage.reductions)]
        stored = [node for node, _ in (*stage.writes, *stage.row_writes)]
        for each in [*(operand for node in made for operand in node.inputs), *stored]:
            look(each)
    return found


class Reductions:
    """The part of a frame's text that is about rows as a whole.

    Args:
        rows: of a thread. index: which of these a number belongs to, in the equations of units.
        lanes: the least and the largest of the bits in which lanes of one row differ.
        writes: whether a thread is the one that writes for its row. there: whether there is such a row `e`.
    """

    def __init__(
        self, frame: Frame, rows: int, index: str, lanes: tuple[int, int], writes: str, there: str
    ) -> None:
        self.frame, self.rows, self.index, self.lanes = frame, rows, index, lanes
        self.writes, self.there = writes, there
        self._partial = reductions_of(frame.program)
        self._units = literal(float(frame.form.hidden))

    @property
    def columns(self) -> int:
        """How many numbers a step adds up."""
        return len(self._partial)

    def variable(self, slot: Slot) -> str:
        return f"{c_name(slot.buffer.name)}_{slot.column}"

    def number(self, slot: Slot) -> str:
        """A number of the row, where equations of its units want it."""
        return f"{self.variable(slot)}[{self.index}]"

    # --- numbers of a row -----------------------------------------------------------------------------------------

    def compute(self, stage: Stage) -> None:
        """The numbers of its rows that a stage begins with."""
        frame = self.frame
        if not stage.row_writes:
            return
        made = [
            (node, slot) for node, slot in stage.row_writes if slot.buffer.storage is StorageClass.SCRATCH
        ]
        for _, slot in made:
            frame.line(f"float {self.variable(slot)}[{self.rows}];")
        with frame.unrolled("e", self.rows):
            for node, slot in made:
                frame.line(f"{self.variable(slot)}[e] = {self._made(node)};")
            for node, slot in stage.row_writes:
                if slot.buffer.storage is StorageClass.PER_STEP:
                    value = f"f_{frame.number.name}({self._value(node)})"
                    frame.line(f"if ({self.writes} && {self.there}) {self._kept(slot)} = {value};")

    def _made(self, node: Node) -> str:
        """The expression that makes a number of row e."""
        if node in self._partial:
            total = f"{self.variable(self._partial[node])}[e]"
            return f"{total} / {self._units}" if node.op.name == "mean" else total
        operands = [self._value(each) for each in node.inputs]
        if node.op is SHARE:
            return f"({operands[0]} / {self._units})"
        return lowered(node, operands, self.frame.number)

    def _value(self, node: Node) -> str:
        """A number of row e."""
        program = self.frame.program
        if node.op is CONSTANT:
            return literal(float(node.attribute))  # type: ignore[arg-type]
        slot = program.rows.get(node) or program.reads.get(node)
        # A comparison, or what is made of numbers alone: where that is kept, it is among the values of units.
        if slot is None or (node.shape is Shape.NUMBER and node.inputs):
            return self._made(node)
        return f"{self.variable(slot)}[e]" if slot.buffer.width is Width.ROW else self.frame.leaf(node)

    def _kept(self, slot: Slot) -> str:
        """Where a number of row e lies in memory of all steps."""
        frame = self.frame
        pointer, element = frame.rows_of(slot.buffer), "u16" if frame.number.bytes == 2 else "u32"
        return f"(({element}*){pointer})[((i64)at + row[e]) * {slot.buffer.columns} + {slot.column}]"

    @property
    def read(self) -> list[Slot]:
        """The numbers that were kept of all steps, and are wanted."""
        wanted = numbers_read(self.frame.program, self.frame.program.stages)
        return [slot for slot in wanted if slot.buffer.storage is StorageClass.PER_STEP]

    def load(self, slot: Slot, prefix: str = "") -> None:
        """Read one of these."""
        value = f"{self.frame.number.name}_f({self._kept(slot)})"
        self.frame.each(self.rows, f"{prefix}{self.variable(slot)}[e] = {self.there} ? {value} : 0.f;", "e")

    # --- over units -----------------------------------------------------------------------------------------------

    def clear(self, stage: Stage) -> None:
        """Nothing in what a stage adds up."""
        for node, slot in stage.reductions:
            neutral = literal(TOGETHER[node.op.name].neutral)
            self.frame.line(f"float {self.variable(slot)}[{self.rows}];")
            self.frame.each(self.rows, f"{self.variable(slot)}[e] = {neutral};", "e")

    def add(self, stage: Stage, known: dict[Node, str], is_unit: str | None) -> None:
        """One unit of a row more.

        Args:
            is_unit: whether there is such a unit; None if there always is.
        """
        for node, slot in stage.reductions:
            how, value = TOGETHER[node.op.name], self.frame.expression(node.inputs[0], known)
            if is_unit is not None:
                value = f"({is_unit} ? {value} : {literal(how.neutral)})"
            self.frame.line(f"{self.number(slot)} = {how.text.format(self.number(slot), value)};")

    def finish(self, stage: Stage, shared: str, warps: int, row: str, rows: int) -> None:
        """From what each thread has added up to what all of a row have together.

        Args:
            shared: floats in shared memory, `columns` * warps * rows. row: the number of row e in its block.
            rows: of a block.
        """
        frame, (least, most) = self.frame, self.lanes
        for node, slot in stage.reductions:
            name, lanes = self.variable(slot), TOGETHER[node.op.name].lanes
            frame.each(self.rows, f"{name}[e] = {lanes}<{least}, {most}>({name}[e]);", "e")
        if not stage.reductions or warps == 1:
            return
        with frame.block(f"if (!(lane & {2 * most - least}))"):
            for _, slot in stage.reductions:
                place = f"{shared}[({slot.column * warps} + warp) * {rows} + {row}]"
                frame.each(self.rows, f"{place} = {self.variable(slot)}[e];", "e")
        frame.line("__syncthreads();")
        for node, slot in stage.reductions:
            with frame.unrolled("e", self.rows):
                frame.line(f"float all = {shared}[{slot.column * warps * rows} + {row}];")
                other = f"{shared}[({slot.column * warps} + w) * {rows} + {row}]"
                together = TOGETHER[node.op.name].text.format("all", other)
                frame.line("#pragma unroll")
                frame.line(f"for (int w = 1; w < {warps}; ++w) all = {together};")
                frame.line(f"{self.variable(slot)}[e] = all;")
