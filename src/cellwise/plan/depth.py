"""The longest chain of values that wait for each other: what no number of processors makes shorter.

A link is one node of the equations: a whole matrix product with its bias, or one pointwise operation. Over a
sequence only what lies between a state and the next adds up, so a step is a matrix of longest paths from what it
starts with to what it leaves, and T steps are its power in the algebra of maximum and sum (Baccelli et al. 1992,
"Synchronization and Linearity").
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import INPUT, STATE
from cellwise.passes import Derivative
from cellwise.passes.differentiate import GRADIENT, OUTPUT, arriving_outputs
from cellwise.plan.polynomial import Polynomial, t

# No path. Far below any length, and twice it still fits 64 bits.
_NEVER = -(1 << 61)
_START, _BEST = 0, 1  # columns before those of the states: a constant 0, and the longest chain so far
_FAR = 1_000_000

Lengths = dict[str, int]  # from a source, to the links of the longest path from it


@dataclass(frozen=True)
class Step:
    """One step of one layer: the longest paths to each new state, to what the next layer takes, and to other ends.

    Each is by source: the name of a state, `INPUT` for what comes from the layer before, `START` for what is always
    there, such as parameters and, backward, saved values.
    """

    states: dict[str, Lengths]
    output: Lengths
    ends: tuple[Lengths, ...] = ()

    INPUT = "input"
    START = "start"


def forward_step(graph: StepGraph) -> Step:
    """The chains of a step forward."""

    def source(node: Node) -> str:
        # A name in brackets cannot be that of a state, whatever a cell calls its states.
        if node.op is STATE:
            return f"({node.attribute})"
        return Step.INPUT if node.op is INPUT or node in graph.part_nodes else Step.START

    paths = _paths(graph.nodes, source)
    new = {f"({s})": paths[node] for s, node in zip(graph.states, graph.new_states, strict=True)}
    return Step(new, paths[graph.output], tuple(paths[node] for node in graph.others))


def backward_step(derivative: Derivative, nodes: Iterable[Node], saved: Iterable[Node]) -> Step:
    """The chains of a step backward: `nodes` inputs first, `saved` those whose value is on the tape."""
    outputs = arriving_outputs(derivative.graph)

    def source(node: Node) -> str:
        if node.op is not GRADIENT:
            return Step.START
        # The layer above takes the first output; at others arrives what is always there.
        if node.attribute in outputs:
            return Step.INPUT if node.attribute == OUTPUT else Step.START
        return f"({node.attribute})"

    paths = _paths(nodes, source, set(saved))
    nothing: Lengths = {}
    states = {
        f"({s})": paths[derivative.states[s]] if s in derivative.states else nothing
        for s in derivative.graph.states
    }
    at_gates = [paths[node] for node in derivative.inputs.values()]
    # The gradient at the input is one product of all that arrives at the gates.
    output = _longest(at_gates, 1)
    parts = [gradient for node, gradient in derivative.beside.items() if node in derivative.graph.part_nodes]
    if parts:  # added to that product, where there is one
        output = _longest([output, *(paths[node] for node in parts)], int(bool(at_gates)))
    beside = [
        gradient for node, gradient in derivative.beside.items() if node not in derivative.graph.part_nodes
    ]
    ends = [*derivative.products.values(), *derivative.parameters.values(), *beside]
    # Gradients at weights are one more product, those at parameters one more sum.
    return Step(states, output, tuple({k: n + 1 for k, n in paths[node].items()} for node in ends))


def _paths(
    nodes: Iterable[Node], source: Callable[[Node], str], saved: Collection[Node] = ()
) -> dict[Node, Lengths]:
    """For each node the longest path from each source."""
    found: dict[Node, Lengths] = {}
    for node in nodes:
        if node in saved:
            found[node] = {Step.START: 0}
        elif not node.inputs:
            found[node] = {source(node): int(node.op is INPUT)}
        else:
            found[node] = _longest((found[i] for i in node.inputs), int(not node.op.free))
    return found


def _longest(paths: Iterable[Lengths], links: int) -> Lengths:
    longest: Lengths = {}
    for each in paths:
        for name, length in each.items():
            longest[name] = max(longest.get(name, 0), length + links)
    return longest


@dataclass(frozen=True)
class Depth:
    """The longest chain over a sequence through a stack of layers.

    >>> from cellwise import cells
    >>> depth = Depth(forward_step(cells.get("lstm").graph))
    >>> depth.formula, depth.at(1), depth.at(100)
    (7t, 7, 700)
    """

    step: Step
    layers: int = 1

    def at(self, length: int) -> int:
        """The links of the longest chain over so many steps."""
        power, matrix = self._identity(), self._matrix()
        while length:
            if length & 1:
                power = _compose(matrix, power)
            matrix, length = _compose(matrix, matrix), length >> 1
        return max(0, int(power[_BEST].max()))

    @property
    def per_step(self) -> Fraction:
        """What each further step of a long sequence adds; not whole if a state feeds itself only every other step."""
        period = lcm(*range(1, len(self.step.states) + 1))
        return Fraction(self.at(2 * _FAR * period) - self.at(_FAR * period), _FAR * period)

    @property
    def formula(self) -> Polynomial | None:
        """The depth in t from the first step on; None if it is no polynomial."""
        first, slope = self.at(1), self.per_step
        if slope.denominator != 1:
            return None
        line = int(slope) * t + (first - int(slope))
        checked = (*range(1, 4 * len(self._matrix()) + 9), _FAR, _FAR + 1)
        return line if all(line.at(t=length) == self.at(length) for length in checked) else None

    def __str__(self) -> str:
        formula = self.formula
        return f"{self.per_step}t + …" if formula is None else str(formula)

    def _identity(self) -> np.ndarray:
        size = 2 + self.layers * len(self.step.states)
        matrix = np.full((size, size), _NEVER, np.int64)
        np.fill_diagonal(matrix, 0)
        matrix[_BEST, _START] = 0
        return matrix

    def _matrix(self) -> np.ndarray:
        """One step of time: row i, column j holds the longest path from j before it to i after it."""
        step = self.step
        size = 2 + self.layers * len(step.states)
        matrix = np.full((size, size), _NEVER, np.int64)
        matrix[_START, _START] = matrix[_BEST, _BEST] = 0
        start = matrix[_START].copy()
        below = start
        for layer in range(self.layers):
            rows = {name: 2 + layer * len(step.states) + i for i, name in enumerate(step.states)}
            for name, path in step.states.items():
                matrix[rows[name]] = _row(path, rows, start, below)
            ends = [_row(path, rows, start, below) for path in (step.output, *step.ends)]
            below = ends[0]
            matrix[_BEST] = np.maximum.reduce([matrix[_BEST], *ends, *(matrix[p] for p in rows.values())])
        return matrix


def _row(path: Lengths, rows: dict[str, int], start: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A path of one layer, written in the columns of the whole stack."""
    row = np.full_like(start, _NEVER)
    for name, length in path.items():
        if name in rows:
            row[rows[name]] = max(row[rows[name]], length)
        else:
            row = np.maximum(row, (below if name == Step.INPUT else start) + length)
    return row


def _compose(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """First `before`, then `after`."""
    sums: Sequence[np.ndarray] = [(row[:, None] + before).max(axis=0) for row in after]
    return np.maximum(np.stack(sums), _NEVER)
