"""A step as compiled backends run it: buffers, and stages of products followed by pointwise work. Forward or backward.

Both directions of differentiation are the same kind of thing: a few buffers, and for each step of time a few stages.
In a stage, accumulators are filled by products of rows known before (terms), pointwise nodes are computed from
them and from what is read, and values that others need are written. Everything here is frozen data.

What all units of a row give together (a reduction) is added up in one stage, unit after unit, and is there when the
next one begins: with that, the next stage first computes all that is one number of a row.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cached_property

from cellwise.graph import Node, StepGraph
from cellwise.graph.verify import GraphError


class StorageClass(enum.Enum):
    """Where an buffer's rows live, and so how a row is found at a step."""

    PER_STEP = "one row per column and step of each sequence"
    BESIDE = "one row per step of each sequence, of a number for each unit or of one that stands for all"
    PER_SEQUENCE = "one row per sequence, the same at each of its steps"
    PER_CHUNK = "one row per column and step of each sequence, for the span of time that is run at once"
    CARRY_IN = (
        "one row per sequence, where its step before this one left it; before its first step, the initial one"
    )
    CARRY_OUT = "one row per sequence, which the next step finds as its CARRY_IN"
    AHEAD = "one row per column and step of each sequence, for the steps whose inputs are multiplied at once"
    SCRATCH = "one row per column and sequence, within a step"
    PER_UNIT = "one row"
    REDUCTION = "one row per column, added to by every step of every sequence"
    SCALAR = "one number"


class Width(enum.Enum):
    """How many numbers a row has."""

    INPUT = "D"
    HIDDEN = "H"
    PROJECTED = "P"
    ROW = "1"
    PARTIAL = "partial"  # as many numbers as a backend adds up side by side


@dataclass(frozen=True)
class Buffer:
    name: str
    storage: StorageClass
    columns: int = 1
    width: Width = Width.HIDDEN


@dataclass(frozen=True)
class Slot:
    """A column of an buffer."""

    buffer: Buffer
    column: int = 0


@dataclass(frozen=True)
class WeightBlock:
    """The rows of `weight_ih` or `weight_hh` that belong to some gates; `transposed` for the backward product."""

    stem: str
    gates: tuple[str, ...]
    transposed: bool = False


@dataclass(frozen=True)
class MatmulTerm:
    """Adds to some accumulators the product of a row with weights."""

    operand: Slot
    weight: WeightBlock
    accumulators: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Stage:
    """`accumulators` are the nodes whose values they hold; `biases` for each the (stem, gate) pairs it starts from.

    `width` is that of its values. Before all else it computes `row_nodes`, one number of each row, and writes them by
    `row_writes`: reductions that the stage before added up, and what follows from such. `reductions` are those that
    this stage adds up, and where.
    """

    accumulators: tuple[Node, ...]
    biases: tuple[tuple[tuple[str, str], ...], ...]
    terms: tuple[MatmulTerm, ...]
    nodes: tuple[Node, ...]
    writes: tuple[tuple[Node, Slot], ...]
    width: Width = Width.HIDDEN
    row_nodes: tuple[Node, ...] = ()
    row_writes: tuple[tuple[Node, Slot], ...] = ()
    reductions: tuple[tuple[Node, Slot], ...] = ()

    @property
    def has_units(self) -> bool:
        """Whether it does anything unit by unit."""
        return bool(self.accumulators or self.writes or self.reductions)


@dataclass(frozen=True, eq=False)
class Program:
    """One direction of differentiation of one cell, `graph`. `reads` says where the value of a leaf lies.

    `states` are the values carried from step to step, each as a CARRY_IN and a CARRY_OUT buffer. `before_loop` are
    stages that are done for many steps at once, before the first of these. `buffers` are those that the stages use, its
    results among them.
    """

    name: str
    buffers: tuple[Buffer, ...]
    stages: tuple[Stage, ...]
    reads: dict[Node, Slot]
    states: tuple[tuple[Buffer, Buffer], ...]
    graph: StepGraph
    before_loop: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        names = [buffer.name for buffer in self.buffers]
        if len(set(names)) != len(names):  # a state called own beside a parameter called before
            raise GraphError(
                f"{self.name}: two of its buffers have the same name; call a state or parameter otherwise"
            )

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """Those before the steps, then those of a step."""
        return (*self.before_loop, *self.stages)

    @cached_property
    def rows(self) -> dict[Node, Slot]:
        """Where within a step the numbers of a row lie that the program computes."""
        return {
            node: slot
            for stage in self.stages
            for node, slot in stage.row_writes
            if slot.buffer.storage is StorageClass.SCRATCH
        }

    def buffer(self, name: str) -> Buffer:
        return next(buffer for buffer in self.buffers if buffer.name == name)
