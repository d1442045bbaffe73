"""How many units each value of a step has, where some have others than H.

A state says it (`widths`), and an output or a gate may; all else follows. Values that meet unit by unit have equal
numbers of units; a gate has those of what it meets, in its input rows and its recurrent rows, and its recurrent matrix
has a column for each unit of what it is asked of. What nothing is said of has H.

A value beside x, and what is computed of such values and numbers alone, meets any number of units.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cellwise.graph.expr import ONLY_OUTPUT, Node, StepGraph, postorder
from cellwise.graph.forms import FORMS
from cellwise.graph.ops import BESIDE, DRAW, INPUT, PROJECT, STATE, VECTOR, Kind
from cellwise.graph.units import HIDDEN, Units


class WidthError(ValueError):
    """Two numbers of units for what can have one: in words, with the node at which they met."""

    def __init__(self, problem: str, node: Node) -> None:
        super().__init__(problem)
        self.node = node


@dataclass(frozen=True, eq=False)
class Widths:
    """The units of all that has units: of gates those that are asked for.

    `columns` are those of what each gate is asked of; of `inputs` None where a value beside x meets several widths,
    and so can be only one number a row. `beside` has what is computed of such values alone, which `values` has not.
    """

    values: Mapping[Node, Units]
    beside: Mapping[Node, Units | None]
    gates: Mapping[str, Units]
    columns: Mapping[str, Units]
    states: Mapping[str, Units]
    vectors: Mapping[str, Units]
    draws: Mapping[str, Units]
    inputs: Mapping[str, Units | None]
    outputs: tuple[Units, ...]

    @property
    def all(self) -> frozenset[Units]:
        """All that occur."""
        own = (*self.values.values(), *self.gates.values(), *self.columns.values(), *self.states.values())
        return frozenset((*own, *self.vectors.values(), *self.outputs))


@lru_cache(maxsize=512)
def widths_of(graph: StepGraph) -> Widths:
    """The units of the values of a step.

    Raises:
        WidthError: values of several widths meet unit by unit.
    """
    found = _Classes(graph)
    for node in graph.nodes:
        found.add(node)
    ends = [*zip(graph.states, graph.new_states, strict=True)]
    for state, node in ends:
        found.meets(node, ("state", state), f"the new value of {state}")
    outputs = (graph.output, *graph.others)
    names = graph.outputs or ONLY_OUTPUT
    asked = {*graph.input_gates, *graph.state_gates}
    for name, node in zip(names, outputs, strict=True):
        found.meets(node, ("output", name), f"the output {name}".rstrip())
    return Widths(
        values={
            node: found.of(node)
            for node in graph.nodes
            if node.shape.has_units and node not in found.flexible
        },
        beside={node: found.of_beside(node) for node in found.flexible},
        gates={gate: found.of(("gate", gate)) for gate in graph.gates if gate in asked},
        columns={gate: found.of(("columns", gate)) for gate in graph.state_gates},
        states={state: found.of(("state", state)) for state in graph.states},
        vectors={name: found.of(("vector", name)) for name in graph.vectors},
        draws={draw.name: found.of(("draw", draw.name)) for draw in graph.draws},
        inputs={name: found.of_input(name) for name in graph.inputs},
        outputs=tuple(found.of(("output", name)) for name in names),
    )


class _Classes:
    """What has equally many units, as a forest; of each class what was said of it."""

    def __init__(self, graph: StepGraph) -> None:
        self._parent: dict[Hashable, Hashable] = {}
        self._said: dict[Hashable, Units] = {}
        self.flexible: set[Node] = set()
        self._meets: dict[Node, list[Hashable]] = {}  # of a flexible value, what it met
        self._inputs = frozenset(graph.inputs)
        said = dict(graph.widths)
        for state in graph.states:
            self._said["state", state] = said.get(state, HIDDEN)
        for name, units in graph.widths:
            for kind, names in (("gate", graph.gates), ("output", graph.outputs or ONLY_OUTPUT)):
                if name in names:
                    self._said[kind, name] = units
        for (_, gate), form in graph.forms.items():
            size = FORMS[form.kind].size
            if size is not None:  # a matrix that is given
                rows, columns = size(form.number)
                self._said["gate", gate], self._said["columns", gate] = Units(rows, 0), Units(columns, 0)

    def of(self, key: Hashable) -> Units:
        return self._said.get(self._root(key), HIDDEN)

    def of_input(self, name: str) -> Units | None:
        """Of a value beside x what all of its uses have; None if they differ."""
        met = {self.of(each) for node, keys in self._meets.items() if _reads(node, name) for each in keys}
        return next(iter(met or {HIDDEN})) if len(met) < 2 else None

    def of_beside(self, node: Node) -> Units | None:
        """Of what is computed of values beside x; None if it is one number a row."""
        units = (self.of_input(name) for name in sorted(self._inputs) if _reads(node, name))
        return next((each for each in units if each is not None), None)

    def add(self, node: Node) -> None:
        """Have a node meet what it is computed of."""
        if node.op is PROJECT:
            gate = str(node.attribute)
            asked_of = (
                f"what the matrix {gate} takes" if node.is_given else f"what the gate {gate} is asked of"
            )
            self.meets(node.inputs[0], ("columns", gate), asked_of)
            if node.function and not node.is_given:  # of as many units as it takes
                self.meets(node.inputs[0], ("gate", gate), f"what {gate} is taken of")
        if node.op.kind is Kind.REDUCTION and node.inputs[0] in self.flexible:
            self._meets[node.inputs[0]].append(("all", node))
        if not node.shape.has_units:
            return
        if node.op in _NAMED:
            self.meets(node, (_NAMED[node.op], str(node.attribute)), "")
            return
        with_units = [each for each in node.inputs if each.shape.has_units]
        is_input = node.op is BESIDE and node.attribute in self._inputs
        if is_input or (with_units and all(each in self.flexible for each in with_units)):
            self.flexible.add(node)
            self._meets[node] = []
            return
        for each in with_units:
            self.meets(each, node, "", node)

    def meets(self, node: Node, key: Hashable, what: str, at: Node | None = None) -> None:
        """A value meets a class; `what` says of it what it is, and otherwise the node at which that happens does."""
        if node in self.flexible:
            self._meets[node].append(key)
            return
        one, other = self._root(node), self._root(key)
        if one == other:
            return
        here, there = self._said.get(one), self._said.get(other)
        if here is not None and there is not None and here != there:
            raise WidthError(_clash(node, here, there, what, at), at or node)
        self._parent[other] = one
        if there is not None:
            self._said[one] = there

    def _root(self, key: Hashable) -> Hashable:
        path = []
        while key in self._parent:
            path.append(key)
            key = self._parent[key]
        for each in path:
            self._parent[each] = key
        return key


_NAMED = {INPUT: "gate", PROJECT: "gate", STATE: "state", VECTOR: "vector", DRAW: "draw"}


def _reads(node: Node, name: str) -> bool:
    """Whether a flexible value is computed of a value beside x."""
    return any(each.op is BESIDE and each.attribute == name for each in postorder([node]))


def _clash(node: Node, here: Units, there: Units, what: str, at: Node | None) -> str:
    from cellwise.graph.text import short

    one, other = (f"{each} unit{'' if str(each) == '1' else 's'}" for each in (here, there))
    if what:
        return f"{what[0].upper()}{what[1:]} has {other}, and {short(node)} has {one}"
    if at is not None:
        return f"Values of {one} and of {other} meet unit by unit in {short(at)}"
    return f"{short(node)} would have {one} and {other}"


def row_width(graph: StepGraph, hidden_size: int) -> int:
    """The largest number of units of any value at some H: the width of the rows that kernels compute with."""
    if not graph.widths:
        return hidden_size
    return max(units.at(hidden_size) for units in widths_of(graph).all)
