"""The arrays that programs share: what a layer is given, what it returns, and what a forward pass keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import SCALAR, STATE, VECTOR
from cellwise.plan.program import Array, Place, Ref, Width

# For each state where it is before a step, and where it is after it.
States = tuple[tuple[Array, Array], ...]

X = Ref(Array("x", Place.STEPS, width=Width.INPUT))


@dataclass(frozen=True, eq=False)
class Tape:
    """What a forward pass keeps beside the outputs and the states: node -> column of the array "tape"."""

    columns: dict[Node, int]

    @property
    def array(self) -> Array:
        return Array("tape", Place.STEPS, len(self.columns))


def parameter_refs(graph: StepGraph) -> dict[Node, Ref]:
    """Where a cell's own parameters lie; numbers are written into the code."""
    places = {VECTOR: Place.UNITS, SCALAR: Place.NUMBER}
    return {
        node: Ref(Array(f"own {node.attribute}", places[node.op]))
        for node in graph.nodes
        if node.op in places
    }


def output_array(projected: bool) -> Array:
    return Array("output", Place.STEPS, width=Width.PROJECTED if projected else Width.HIDDEN)


def carried(names: Sequence[str], projected: bool) -> States:
    """The arrays of values that are carried from step to step; with `projected`, the first is as wide as the output."""
    widths = [Width.PROJECTED if projected and name == names[0] else Width.HIDDEN for name in names]
    return tuple(
        (Array(f"{name} before", Place.BEFORE, width=width), Array(f"{name} after", Place.AFTER, width=width))
        for name, width in zip(names, widths, strict=True)
    )


def state_refs(graph: StepGraph, states: States) -> dict[Node, Ref]:
    """Where each state is found before a step."""
    return {node: Ref(states[graph.states.index(str(node.attribute))][0]) for node in graph.of(STATE)}
