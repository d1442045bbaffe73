"""The checker that runs between the stages: a graph that passes is well formed, whoever made it.

Its names are harmless wherever they are written: a gate, state, parameter or variable is a Python identifier, and the
name of a cell is printable, on one line.
"""

from __future__ import annotations

from collections import Counter

from cellwise.graph.expr import ONLY_OUTPUT, RAW, Draw, Node, Shape, StepGraph, first_name
from cellwise.graph.forms import FORMS, Form, apart_stem, stems_of
from cellwise.graph.ops import BESIDE, CONSTANT, DRAW, INPUT, OPS, PROJECT, SCALAR, STATE, VECTOR, Kind, Op
from cellwise.graph.units import HIDDEN, Units, units_of
from cellwise.graph.widths import WidthError, widths_of

_NAMES = {
    INPUT: "gates",
    PROJECT: "gates",
    STATE: "states",
    VECTOR: "vectors",
    SCALAR: "scalars",
    BESIDE: "inputs",
    DRAW: "draws",
}


_LONGEST_NAME = 1000
# What a layer's own parameters are called, and so no parameter of a cell.
_TAKEN = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class GraphError(AssertionError):
    """A graph is malformed: a mistake in cellwise, or in a text that somebody else wrote; not in the user's cell."""


def verify(graph: StepGraph) -> StepGraph:
    """Return `graph` as it is, or raise GraphError with the node that breaks a rule."""
    _check_names(graph)
    seen: set[Node] = set()
    keys: set[tuple[object, ...]] = set()
    for node in graph.nodes:
        for problem in _problems(graph, node, seen):
            raise GraphError(f"{graph.name}: {node.op} {_attribute(node)}: {problem}")
        key = (node.op, node.inputs, type(node.attribute), str(node.attribute))
        if key in keys:
            raise GraphError(
                f"{graph.name}: {node.op} {_attribute(node)} stands twice; equal nodes must be one"
            )
        keys.add(key)
        seen.add(node)
    for op, gate in mixed_biases(graph):
        raise GraphError(f"{graph.name}: {op} {gate!r} stands both with and without its bias")
    for op, gate in mixed_forms(graph):
        raise GraphError(f"{graph.name}: {op} {gate!r} stands with weights of two kinds")
    if mixes_parts(graph):
        raise GraphError(f"{graph.name}: gates of its input are ready, and others are not")
    if len(graph.new_states) != len(graph.states):
        raise GraphError(f"{graph.name}: {len(graph.states)} states, {len(graph.new_states)} new values")
    if len(graph.outputs) != len(graph.others) + bool(graph.others):
        raise GraphError(f"{graph.name}: {1 + len(graph.others)} outputs, {len(graph.outputs)} names")
    _check_widths(graph)
    for stem in shared_stems(graph):
        raise GraphError(f"{graph.name}: two of its weights are called {stem[:60]}")
    for root in (graph.output, *graph.new_states, *graph.others):
        if root.shape is not Shape.BATCH or root.is_mask:
            raise GraphError(f"{graph.name}: an output or a state must be a real value of shape (B, H)")
    return graph


def mixed_biases(graph: StepGraph) -> list[tuple[Op, str]]:
    """The gates that are asked for both with and without their bias."""
    kinds = {
        (node.op, str(node.attribute), node.linear) for node in graph.nodes if node.op in (INPUT, PROJECT)
    }
    return [(op, gate) for op, gate, linear in kinds if linear and (op, gate, False) in kinds]


def mixed_forms(graph: StepGraph) -> list[tuple[Op, str]]:
    """The gates whose weight is made in one way here and in another there."""
    made: dict[tuple[Op, str], set[Form | None]] = {}
    for node in graph.nodes:
        if node.op in (INPUT, PROJECT):
            made.setdefault((node.op, str(node.attribute)), set()).add(node.form)
    return [place for place, forms in made.items() if len(forms) > 1]


def shared_stems(graph: StepGraph) -> list[str]:
    """What two of a layer's weights would be called: the left factor of a gate "n", and the weight of one "n_left"."""
    stems = Counter(stem for place, form in graph.forms.items() for stem in stems_of(*place, form))
    stems.update(apart_stem(gate) for gate in graph.apart("hh"))
    return [stem for stem, count in stems.items() if count > 1]


def mixes_parts(graph: StepGraph) -> bool:
    """Whether some gates of the input are ready and what else is asked of it is not, so that it has no one width."""
    parts = graph.input_parts
    return bool(parts) and parts != (RAW,) and (RAW in parts or bool(graph.input_gates))


def _attribute(node: Node) -> str:
    return "" if node.attribute is None else repr(node.attribute)[:60]


def _check_names(graph: StepGraph) -> None:
    if not (graph.name.isprintable() and len(graph.name) <= _LONGEST_NAME):
        raise GraphError(f"a cell is called {graph.name[:40]!r}, which is no line of printable text")
    given = (*graph.inputs, *_names(graph, DRAW))
    kinds = {"gate": graph.gates, "state": graph.states, "parameter": (*graph.vectors, *graph.scalars)}
    kinds |= {"value beside x": given, "output": graph.outputs}
    for kind, names in kinds.items():
        for name in names:
            _check_identifier(graph, kind, name)
        if len(set(names)) != len(names):
            raise GraphError(f"{graph.name}: two of its {kind}s have the same name")
    for name in (*graph.vectors, *graph.scalars, *given):
        if name.startswith(_TAKEN):
            raise GraphError(f"{graph.name}: {name[:40]!r} is no parameter of a cell's own, but a layer's")
    shared = {*given, *graph.input_parts} & {*graph.states, *graph.vectors, *graph.scalars}
    if shared:
        raise GraphError(f"{graph.name}: {min(shared)[:40]!r} is a value beside x, and something else too")
    for draw in graph.draws:
        _check_law(graph, draw)
    _check_learned_first(graph, {*given, *graph.vectors, *graph.scalars})
    for _, name in graph.names:
        _check_identifier(graph, "variable", name)
    if not graph.states:
        raise GraphError(f"{graph.name}: has no state")


def _check_learned_first(graph: StepGraph, taken: set[str]) -> None:
    for state in graph.learned_first:
        if state not in graph.states or graph.learned_first.count(state) > 1:
            raise GraphError(f"{graph.name}: a first value is learned of {state[:40]!r}, which is no state")
        if first_name(state) in taken:
            raise GraphError(
                f"{graph.name}: {first_name(state)[:40]!r} is where a state begins, and something else too"
            )


def _check_widths(graph: StepGraph) -> None:
    names = {*graph.states, *graph.gates, *(graph.outputs or ONLY_OUTPUT)}
    for name, units in graph.widths:
        if name not in names or units == HIDDEN or units_of(str(units)) != units:
            raise GraphError(f"{graph.name}: {name[:40]!r} has no such width")
    if len({name for name, _ in graph.widths}) != len(graph.widths):
        raise GraphError(f"{graph.name}: the width of a name is said twice")
    if graph.widths and graph.input_parts:
        raise GraphError(f"{graph.name}: takes its input as it is, and has several widths")
    for (_, gate), form in graph.forms.items():
        size = FORMS[form.kind].size
        if size is not None and (gate, Units(size(form.number)[0], 0)) not in graph.widths:
            raise GraphError(f"{graph.name}: {gate[:40]!r} has not the rows of its matrix")
    try:
        if graph.widths:
            widths_of(graph)
    except WidthError as error:
        raise GraphError(f"{graph.name}: {error}") from None


def _names(graph: StepGraph, op: Op) -> tuple[str, ...]:
    """The names that nodes of an op may carry."""
    if op is DRAW:
        return tuple([draw.name for draw in graph.draws])
    named: tuple[str, ...] = getattr(graph, _NAMES[op])
    return (*named, *graph.input_parts) if op is BESIDE else named


def _check_law(graph: StepGraph, draw: Draw) -> None:
    law, once = draw.probability, draw.per_sequence
    if type(once) is not bool or not (law is None or (isinstance(law, float) and 0 < law < 1)):
        raise GraphError(f"{graph.name}: {draw.name} is drawn from no distribution that there is")


def _check_identifier(graph: StepGraph, kind: str, name: str) -> None:
    if not (name.isidentifier() and len(name) <= _LONGEST_NAME):
        raise GraphError(f"{graph.name}: {name[:40]!r}, the name of a {kind}, is no Python identifier")


def _problems(graph: StepGraph, node: Node, seen: set[Node]) -> list[str]:
    found = []
    if OPS.get(node.op.name) is not node.op:
        found.append("is not an op of the table")
    if len(node.inputs) != node.op.operands:
        found.append(f"takes {node.op.operands} operands, has {len(node.inputs)}")
    if any(i not in seen for i in node.inputs):
        found.append("stands before an operand")
    if node.op in _NAMES and node.attribute not in _names(graph, node.op):
        found.append(f"names none of the {_NAMES[node.op]}")
    if node.op not in _NAMES and node.op is not CONSTANT and node.attribute is not None:
        found.append("carries an attribute, which only leaves do")
    if node.op is CONSTANT and not isinstance(node.attribute, float):
        found.append("a constant carries a float")
    if node.linear and node.op not in (INPUT, PROJECT):
        found.append("is linear, as only gates can be")
    if node.form is not None and node.op not in (INPUT, PROJECT):
        found.append("has a form, as only the weights of gates can have")
    if node.function and (node.op is not PROJECT or not node.linear):
        found.append("is a function, and no product without a bias")
    masks = [i.is_mask for i in node.inputs]
    if (masks and masks[0] != node.op.takes_mask) or any(masks[1:]):
        found.append("a mask may only be the first operand of where")
    if node.op.kind is Kind.REDUCTION and any(i.shape is not Shape.BATCH for i in node.inputs):
        found.append("takes the units together of a value that is not of shape (B, H)")
    if node.op is PROJECT and any(i.shape is not Shape.BATCH for i in node.inputs):
        found.append("projects a value that is not of shape (B, H)")
    if node.op is PROJECT and any(i.op in (BESIDE, DRAW) for i in node.inputs):
        found.append("projects a value beside x by itself")
    return found
