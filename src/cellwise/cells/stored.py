"""A cell without its class: its equations, and how its own parameters begin, as plain data that a file can hold.

What is trained with a cell of one's own can so be read where the cell's code is not: the graph of its step is all
that running it takes. JSON-able, no code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any

from cellwise import cells
from cellwise.cells.base import (
    LONGEST_NAME,
    Cell,
    Initial,
    Parameter,
    Scalar,
    Vector,
    check_names,
    description_of,
    own_parameters,
)
from cellwise.errors import CellwiseError, UnknownCellError
from cellwise.graph import StepGraph
from cellwise.graph.expr import first_name
from cellwise.graph.stored import restore, store
from cellwise.graph.verify import GraphError

__all__ = ["StoredCell", "StoredCellError", "known_cell", "restore_cell", "store_cell"]

# Attributes of a stored cell's class. (Not declared in it: an annotated attribute of a cell is an option.)
_GRAPH, _TEXTS, _LEARNER = "_stored_graph", "_stored_texts", "_stored_training_graph"
# What only some cells have: the graph of their training, and what inputs beside x are where a call gives none.
_TRAINING, _DEFAULTS, _OUTPUTS = "training graph", "inputs", "outputs"


class StoredCellError(CellwiseError):
    """What a file says of a cell is no cell."""


class StoredCell(Cell):
    """A cell that was read back from its equations. Abstract: `restore_cell` makes a subclass for each."""

    def __init__(self) -> None:
        self.__dict__["options"] = {}

    @cached_property
    def graph(self) -> StepGraph:
        graph: StepGraph = getattr(type(self), _GRAPH)
        return graph

    @cached_property
    def training_graph(self) -> StepGraph:
        graph: StepGraph = getattr(type(self), _LEARNER)
        return graph

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, getattr(type(self), _TEXTS)

    def __repr__(self) -> str:
        return f"<the stored cell {self.name!r}>"


def store_cell(cell: Cell) -> dict[str, Any]:
    """All that running a cell takes, JSON-able.

    Raises:
        CellError: its equations are wrong.
        StoredCellError: it could not be read back; better said now than when it has been trained.
    """
    about = description_of(cell)
    stored: dict[str, Any] = {
        "name": cell.name,
        "about": "".join(filter(str.isprintable, about.partition("\n")[0]))[:LONGEST_NAME],
        "output": cell.output,
        "initial": {each.name: each.initial for each in own_parameters(type(cell))},
        "graph": store(cell.graph),
    }
    if cell.training_graph is not cell.graph:
        stored[_TRAINING] = store(cell.training_graph)
    if cell.outputs:
        stored[_OUTPUTS] = list(cell.outputs)
    if isinstance(cell.inputs, Mapping):
        stored[_DEFAULTS] = dict(cell.inputs)
    restore_cell(stored)
    return stored


def restore_cell(stored: Mapping[str, Any]) -> Cell:
    """The cell that `store_cell` wrote: the known one of this name if its equations are the same, else one that has
    these equations and no class of its own.

    Raises:
        StoredCellError: this is no cell. What it says may come from anybody, so everything is checked.
    """
    try:
        name, about, output = str(stored["name"]), str(stored["about"]), stored["output"]
        initial = tuple(sorted((str(key), _initial(value)) for key, value in stored["initial"].items()))
        more: tuple[Any, ...] = (
            str(stored.get(_TRAINING, "")),
            tuple(sorted(_defaults(stored.get(_DEFAULTS, {})))),
        )
        more += (tuple(map(str, stored.get(_OUTPUTS, ()))),)
        found = _restored(name, about, output, initial, str(stored["graph"]), *more)
    except (
        CellwiseError,
        GraphError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise StoredCellError(f"the stored cell cannot be read: {reason[:200]}") from None
    known = known_cell(name)
    same = known is not None and all(
        _same_equations(getattr(known, each), getattr(found, each)) for each in ("graph", "training_graph")
    )
    return known if known is not None and same and known.inputs == found.inputs else found


def known_cell(name: object) -> Cell | None:
    """The cell of a name, None if there is none."""
    try:
        return cells.get(name) if isinstance(name, str) else None
    except UnknownCellError:
        return None


def _same_equations(one: StepGraph, other: StepGraph) -> bool:
    names = ("gates", "states", "vectors", "scalars", "inputs", "draws", "learned_first", "outputs", "widths")
    same_names = all(getattr(one, each) == getattr(other, each) for each in names)
    return same_names and one.fingerprint == other.fingerprint


def _restored(
    name: str,
    about: str,
    output: str | None,
    initial: tuple[Any, ...],
    text: str,
    training: str = "",
    defaults: tuple[tuple[str, float], ...] = (),
    outputs: tuple[str, ...] = (),
) -> Cell:
    return _restored_once(name, about, output, initial, text, training, defaults, outputs)


@lru_cache(maxsize=64)
def _restored_once(
    name: str,
    about: str,
    output: str | None,
    initial: tuple[Any, ...],
    text: str,
    training: str,
    defaults: tuple[tuple[str, float], ...],
    outputs: tuple[str, ...],
) -> Cell:
    """One class per text, so that equal texts give equal cells."""
    graph = restore(text)
    learner = restore(training) if training else graph
    _check_pair(graph, learner)
    if defaults and {each for each, _ in defaults} != set(graph.inputs):
        raise ValueError("its inputs are not those of its equations")
    for what, value in (("name", name), ("description", about or "-"), ("class", graph.name)):
        if not value.isprintable() or not 0 < len(value) <= LONGEST_NAME:
            raise ValueError(f"its {what} is no short text")
    if output is not None and (not isinstance(output, str) or not output.isidentifier()):
        raise ValueError("its output has no name")
    if graph.outputs != (outputs if len(outputs) > 1 else ()):
        raise ValueError("its outputs are not those of its equations")
    starts = dict(initial)
    own: dict[str, type[Parameter]] = dict.fromkeys(graph.vectors, Vector)
    own |= dict.fromkeys(graph.scalars, Scalar)
    own |= dict.fromkeys(map(first_name, graph.learned_first), Initial)
    if starts.keys() != own.keys() or any(not each.isidentifier() or each.startswith("_") for each in own):
        raise ValueError("its parameters are not those of its equations")
    words: dict[str, Any] = {
        "name": name,
        "gates": graph.gates,
        "states": graph.states,
        "output": output,
        "outputs": outputs,
        "widths": {each or output: str(units) for each, units in graph.widths},
        "inputs": {each: dict(defaults)[each] for each in graph.inputs} if defaults else graph.inputs,
        "__doc__": about,
    }
    texts: tuple[Any, ...] = (name, about, output, initial, text)
    texts += (training, defaults, outputs) if training or defaults or outputs else ()
    words |= {_GRAPH: graph, _LEARNER: learner, _TEXTS: texts}
    made = type(
        graph.name, (StoredCell,), {**{each: kind(starts[each]) for each, kind in own.items()}, **words}
    )
    check_names(made)
    cell: Cell = made()
    return cell


def _check_pair(graph: StepGraph, training: StepGraph) -> None:
    """Raise ValueError unless a layer can have these equations in evaluation and those in training."""
    names = (
        "gates",
        "states",
        "vectors",
        "scalars",
        "inputs",
        "input_gates",
        "state_gates",
        "learned_first",
        "outputs",
        "forms",
        "widths",
    )
    if any(getattr(graph, each) != getattr(training, each) for each in names):
        raise ValueError("its equations in training are those of another cell")


def _defaults(found: Any) -> list[tuple[str, float]]:
    """What inputs beside x are where a call gives none."""
    pairs = [(str(name), _initial(value)) for name, value in found.items()]
    if not all(isinstance(value, float) for _, value in pairs):
        raise ValueError("an input is no number where a call gives none")
    return pairs  # type: ignore[return-value]


def _initial(value: Any) -> float | tuple[float, float] | None:
    """How a parameter begins: None, a number, or the bounds of one."""
    if value is None:
        return None
    numbers = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
        raise ValueError("a parameter begins at no number")
    plain = [float(each) for each in numbers]
    if not all(map(math.isfinite, plain)) or (isinstance(value, list | tuple) and len(plain) != 2):
        raise ValueError("a parameter begins at no number")
    return (plain[0], plain[1]) if isinstance(value, list | tuple) else plain[0]
