"""A step as compiled backends run it: arrays, and stages of products followed by pointwise work. Forward or backward.

Both directions of differentiation are the same kind of thing: a few arrays, and for each step of time a few stages.
In a stage, accumulators are filled by products of rows known before (segments), pointwise nodes are computed from
them and from what is read, and values that others need are written. Everything here is frozen data.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from cellwise.graph import Node, StepGraph
from cellwise.graph.verify import GraphError


class Place(enum.Enum):
    """Where an array's rows live, and so how a row is found at a step."""

    STEPS = "one row per column and step of each sequence"
    SPAN = "one row per column and step of each sequence, for the span of time that is run at once"
    BEFORE = (
        "one row per sequence, where its step before this one left it; before its first step, the initial one"
    )
    AFTER = "one row per sequence, where the next step finds it as BEFORE"
    ROWS = "one row per column and sequence, within a step"
    UNITS = "one row"
    SUM = "one row per column, added to by every step of every sequence"
    NUMBER = "one number"


class Width(enum.Enum):
    """How many numbers a row has."""

    INPUT = "D"
    HIDDEN = "H"
    PROJECTED = "P"


@dataclass(frozen=True)
class Array:
    name: str
    place: Place
    columns: int = 1
    width: Width = Width.HIDDEN


@dataclass(frozen=True)
class Ref:
    """A column of an array."""

    array: Array
    column: int = 0


@dataclass(frozen=True)
class WeightBlock:
    """The rows of `weight_ih` or `weight_hh` that belong to some gates; `transposed` for the backward product."""

    stem: str
    gates: tuple[str, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Segment:
    """Adds to some accumulators the product of a row with weights."""

    operand: Ref
    weight: WeightBlock
    accumulators: tuple[int, ...]


@dataclass(frozen=True)
class HoistedProduct:
    """One matrix product for all steps, before the first: `result` = `operand` times `weight`, plus `bias` if any.

    `result` has a column for each of the weight's gates, in their order, so that it is one product with the whole
    parameter as it lies.
    """

    operand: Array
    weight: WeightBlock
    bias: str
    result: Array


@dataclass(frozen=True, eq=False)
class ProgramStage:
    """`accumulators` are the nodes whose values they hold; `biases` for each the (stem, gate) pairs it starts from.

    `width` is that of its values.
    """

    accumulators: tuple[Node, ...]
    biases: tuple[tuple[tuple[str, str], ...], ...]
    segments: tuple[Segment, ...]
    nodes: tuple[Node, ...]
    writes: tuple[tuple[Node, Ref], ...]
    width: Width = Width.HIDDEN


@dataclass(frozen=True, eq=False)
class Program:
    """One direction of differentiation of one cell, `graph`. `reads` says where the value of a leaf lies.

    `states` are the values carried from step to step, as they are found BEFORE a step and left AFTER it. `before_loop`
    is done for all steps at once, before the first. `arrays` are those that the stages use, its results among them.
    """

    name: str
    arrays: tuple[Array, ...]
    stages: tuple[ProgramStage, ...]
    reads: dict[Node, Ref]
    states: tuple[tuple[Array, Array], ...]
    graph: StepGraph
    before_loop: tuple[HoistedProduct, ...] = ()

    def __post_init__(self) -> None:
        names = [array.name for array in self.arrays]
        if len(set(names)) != len(names):  # a state called own beside a parameter called before
            raise GraphError(
                f"{self.name}: two of its arrays have the same name; call a state or parameter otherwise"
            )

    def array(self, name: str) -> Array:
        return next(array for array in self.arrays if array.name == name)
