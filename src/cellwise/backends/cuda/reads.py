"""What a kernel reads at each step: rows of memory, and what one stage left for another."""

from __future__ import annotations

from cellwise.graph import Node
from cellwise.plan.program import Program, Slot, Stage, StorageClass

INPUT_PRODUCTS = "input products"


class Read:
    """Numbers of one column of an array, of the rows of a step."""

    def __init__(
        self, name: str, pointer: str, slot: Slot, first: str | None, number: str, form: str | None
    ) -> None:
        buffer = slot.buffer
        self.name, self.pointer, self.columns, self.column = name, pointer, buffer.columns, slot.column
        self.number = number  # of the conversions in the prelude
        self.first = first  # of states before a step: where those are that nobody left there
        # A call says of what it gives beside x how far apart rows are, and by how much a unit moves on in one: by one,
        # or not at all where a number stands for all units.
        self.form = form
        # The products of the input are those of the steps that are run at once.
        ahead = buffer.name == INPUT_PRODUCTS
        self.step = "(at - base)" if ahead else "0" if buffer.storage is StorageClass.PER_SEQUENCE else "at"

    @property
    def row(self) -> str:
        """How far apart rows are."""
        return f"{self.columns} * WIDTH" if self.form is None else f"row_{self.form}"

    def units(self, count: str) -> str:
        """How far on in a row so many units are."""
        return count if self.form is None else f"{count} * unit_{self.form}"


def slots_read(program: Program, stage: Stage) -> set[tuple[str, int]]:
    """Buffers and columns whose values some node of a stage wants."""
    found: set[Slot] = set()

    def look(node: Node) -> None:
        if node in program.reads:
            found.add(program.reads[node])
        elif node.is_mask:  # a comparison is made where it is used
            for each in node.inputs:
                look(each)

    made = {*stage.accumulators, *stage.nodes}
    made_of = (*stage.nodes, *(node for node, _ in stage.reductions))
    wanted = [operand for node in made_of for operand in node.inputs]
    for node in [*wanted, *(value for value, _ in stage.writes)]:
        if node not in made:
            look(node)
    return {(slot.buffer.name, slot.column) for slot in found}
