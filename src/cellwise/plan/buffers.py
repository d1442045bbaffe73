"""The buffers that programs share: what a layer is given, what it returns, and what a forward pass keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import BESIDE, DRAW, SCALAR, STATE, VECTOR
from cellwise.plan.program import Buffer, Slot, StorageClass, Width

# For each state where it is before a step, and where it is after it.
States = tuple[tuple[Buffer, Buffer], ...]

TAPE, ROW_TAPE = "tape", "row tape"
_BESIDE = "beside x: "  # no state has such a name
X = Slot(Buffer("x", StorageClass.PER_STEP, width=Width.INPUT))


@dataclass(frozen=True, eq=False)
class Tape:
    """What a forward pass keeps beside the outputs and the states: node -> column of the buffer "tape", and of the
    buffer "row tape", what is one number of each row.
    """

    columns: dict[Node, int]
    row_columns: dict[Node, int]

    @property
    def is_empty(self) -> bool:
        return not (self.columns or self.row_columns)

    @property
    def slots(self) -> dict[Node, Slot]:
        """Where each of them lies."""
        buffer = Buffer(TAPE, StorageClass.PER_STEP, len(self.columns))
        rows = Buffer(ROW_TAPE, StorageClass.PER_STEP, len(self.row_columns), Width.ROW)
        found = {node: Slot(buffer, column) for node, column in self.columns.items()}
        return found | {node: Slot(rows, column) for node, column in self.row_columns.items()}


def given_slots(graph: StepGraph) -> dict[Node, Slot]:
    """Where a cell's own parameters lie, and what it is given beside x; numbers are written into the code."""
    places = {VECTOR: StorageClass.PER_UNIT, SCALAR: StorageClass.SCALAR}
    own = {
        node: Slot(Buffer(f"own {node.attribute}", places[node.op]))
        for node in graph.nodes
        if node.op in places
    }
    once = {draw.name for draw in graph.draws if draw.per_sequence}
    beside = {node: Slot(beside_buffer(str(node.attribute))) for node in graph.of(BESIDE)}
    for node in graph.of(DRAW):
        storage = StorageClass.PER_SEQUENCE if node.attribute in once else StorageClass.PER_STEP
        beside[node] = Slot(replace(beside_buffer(str(node.attribute)), storage=storage))
    return own | beside


def beside_buffer(name: str) -> Buffer:
    """Where a value beside x lies."""
    return Buffer(f"{_BESIDE}{name}", StorageClass.BESIDE)


def name_beside(buffer: Buffer) -> str | None:
    """The name of what a buffer holds that a layer is given beside x; None of any other."""
    return buffer.name.removeprefix(_BESIDE) if buffer.name.startswith(_BESIDE) else None


def output_buffer(graph: StepGraph, projected: bool) -> Buffer:
    """Where the outputs lie, a column each."""
    width = Width.PROJECTED if projected else Width.HIDDEN
    return Buffer("output", StorageClass.PER_STEP, 1 + len(graph.others), width)


def carried(names: Sequence[str], projected: bool) -> States:
    """Buffers of the values carried from step to step; with `projected`, the first is as wide as the output."""
    widths = [Width.PROJECTED if projected and name == names[0] else Width.HIDDEN for name in names]
    return tuple(
        (
            Buffer(f"{name} before", StorageClass.CARRY_IN, width=width),
            Buffer(f"{name} after", StorageClass.CARRY_OUT, width=width),
        )
        for name, width in zip(names, widths, strict=True)
    )


def state_slots(graph: StepGraph, states: States) -> dict[Node, Slot]:
    """Where each state is found before a step."""
    return {node: Slot(states[graph.states.index(str(node.attribute))][0]) for node in graph.of(STATE)}
