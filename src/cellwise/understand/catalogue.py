"""What can be said of any cell in a line: its paper, its size, and properties that follow from its equations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add, mul
from typing import Any

from cellwise import cells
from cellwise.cells.base import Cell, description_of
from cellwise.graph import Node, StepGraph
from cellwise.graph.expr import postorder
from cellwise.graph.ops import OPS, PROJECT, STATE
from cellwise.plan import parameter_layout
from cellwise.plan.polynomial import Polynomial, as_polynomial, as_term, d, h

__all__ = ["PROPERTIES", "Entry", "entries", "parameter_formula"]

# The first year in brackets after a name: (Cho et al. 2014; ...), (De et al. 2024).
_PAPER = re.compile(r"\(([^()]*?\b(?:19|20)\d\d\b[^()]*)\)")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


@dataclass(frozen=True)
class Entry:
    """One cell of the list."""

    cell: Cell

    @property
    def name(self) -> str:
        return self.cell.name

    @cached_property
    def about(self) -> str:
        """What it is, and its paper: the first line of its description."""
        return self._description.partition("\n")[0]

    @cached_property
    def notes(self) -> str:
        """What its description says beside that, such as where its form differs from the paper."""
        return " ".join(self._description.partition("\n")[2].split())

    @property
    def _description(self) -> str:
        return description_of(self.cell)

    @cached_property
    def paper(self) -> str:
        """Authors and year, as its description names them; empty if it names none."""
        found = _PAPER.search(self.about)
        return found[1] if found else ""

    @cached_property
    def year(self) -> int | None:
        found = _YEAR.search(self.paper)
        return int(found[0]) if found else None

    @cached_property
    def parameters(self) -> str:
        """The number of parameters of one layer in one direction, as a formula in D and H."""
        return parameter_formula(self.cell)

    @cached_property
    def matrices(self) -> int:
        """How many weight matrices a layer learns, of the input and of states: D = H counts them alike."""
        graph = self.cell.graph
        return len(graph.input_gates) + len(graph.state_gates) - len(graph.functions)

    @cached_property
    def size(self) -> int:
        """The number of parameters where D = H = 100."""
        return int(_size(self.cell).at(h=100, d=100))

    @cached_property
    def properties(self) -> tuple[str, ...]:
        """Those of PROPERTIES that it has."""
        return tuple(name for name, (_, has) in PROPERTIES.items() if has(self.cell.graph))

    def says(self, words: Iterable[str]) -> bool:
        """Whether all words stand in its name, its class's name or its description."""
        text = f"{self.name} {type(self.cell).__name__} {self._description}".lower()
        return all(word.lower() in text for word in words)


def entries() -> tuple[Entry, ...]:
    """All known cells, with their default options, in alphabetical order.

    >>> [each.name for each in entries() if each.year == 1997]
    ['lstm', 'lstm-original']
    """
    return tuple(Entry(cells.get(name)) for name in cells.names())


def parameter_formula(cell: Cell) -> str:
    """The number of parameters of one layer in one direction as a formula in D and H, read from its layout.

    >>> parameter_formula(cells.get("gru"))
    '3HD + 3H² + 6H'
    """
    numbers = dict(_size(cell).terms)
    kinds = {"HD": h * d, "H²": h * h, "D": d, "H": h, "": as_polynomial(1)}
    found = [(kind, numbers.get(of.terms[0][0], 0)) for kind, of in kinds.items()]
    return " + ".join(as_term(number, kind) for kind, number in found if number)


def _size(cell: Cell) -> Polynomial:
    """The number of parameters of one layer in one direction."""
    input_size: Any = d
    hidden_size: Any = h
    layout = parameter_layout(cell.graph, input_size, hidden_size, bias=True)
    return reduce(add, (reduce(mul, spec.shape, as_polynomial(1)) for spec in layout), Polynomial())


# --- properties -------------------------------------------------------------------------------------------------


def _waits(node: Node, waiting: set[Node]) -> bool:
    """Whether a node depends on a state before the step."""
    return node.op is STATE or any(i in waiting for i in node.inputs)


def _waiting(graph: StepGraph) -> set[Node]:
    found: set[Node] = set()
    for node in graph.nodes:
        if _waits(node, found):
            found.add(node)
    return found


def _is_elementwise(graph: StepGraph) -> bool:
    waiting = _waiting(graph)
    return not any(node.op is PROJECT and node in waiting for node in postorder(graph.new_states))


def _is_affine(graph: StepGraph) -> bool:
    """By degree: 0 without a state, 1 where it is affine in the states, 2 for all else."""
    degree: dict[Node, int] = {}
    for node in graph.nodes:
        of = [degree[i] for i in node.inputs]
        if node.op is STATE:
            degree[node] = 1
        elif node.op is OPS["mul"]:
            degree[node] = sum(of)
        elif node.op in _LINEAR or (node.op is OPS["div"] and not of[1]) or not any(of):
            degree[node] = max(of, default=0)
        elif node.op is OPS["where"] and not of[0]:
            degree[node] = max(of)
        else:
            degree[node] = 2
    return all(degree[node] <= 1 for node in graph.new_states)


_LINEAR = (PROJECT, OPS["add"], OPS["sub"], OPS["neg"], OPS["stop_gradient"])


def _has_chain(graph: StepGraph) -> bool:
    """Whether a product of the step waits for another one of the same step."""
    after: set[Node] = set()
    for node in graph.nodes:
        if any(i in after or i.op is PROJECT for i in node.inputs):
            after.add(node)
            if node.op is PROJECT:
                return True
    return False


# name -> (what it means, whether the equations are so)
PROPERTIES: dict[str, tuple[str, Callable[[StepGraph], bool]]] = {
    "elementwise": ("no matrix product in time: each unit sees no other unit's past", _is_elementwise),
    "affine": ("the new states are affine in the old ones, for a given input", _is_affine),
    "scan": (
        "both: all steps of a sequence could be computed at once",
        lambda graph: _is_elementwise(graph) and _is_affine(graph),
    ),
    "chained": ("a matrix product of the step waits for another one", _has_chain),
    "own-output": ("the output is no state", lambda graph: not graph.output_is_state),
}
