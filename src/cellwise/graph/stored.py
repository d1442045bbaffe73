"""A graph as text that another process can read: in an exported program, for one. JSON, no code."""

from __future__ import annotations

import json
from typing import Any

from cellwise.errors import a_or_an
from cellwise.graph.expr import Draw, Node, StepGraph
from cellwise.graph.forms import form_of
from cellwise.graph.ops import OPS
from cellwise.graph.units import units_of
from cellwise.graph.verify import GraphError, verify

_TUPLES = ("gates", "states", "vectors", "scalars")
# What only some graphs have: the text of one without them is as it was before there were any.
_INPUTS, _DRAWS, _FIRST, _OUTPUTS, _OTHERS = "inputs", "draws", "learned_first", "outputs", "others"
_WIDTHS = "widths"
# A cell that unrolls a loop of 3,000 turns has 9,000 nodes, in 200,000 characters; each takes milliseconds.
_LINEAR = "linear"  # before the op of a gate that has no bias; then its form, if its weight is made of others
MOST_NODES, MOST_CHARACTERS = 2**14, 2**21


def store(graph: StepGraph) -> str:
    """The graph as text.

    >>> from cellwise import cells
    >>> graph = cells.get("gru").graph
    >>> restore(store(graph)).fingerprint == graph.fingerprint
    True
    """
    index = {node: number for number, node in enumerate(graph.nodes)}
    nodes = [[_word(node), node.attribute, *(index[i] for i in node.inputs)] for node in graph.nodes]
    found: dict[str, Any] = {"name": graph.name, **{name: getattr(graph, name) for name in _TUPLES}}
    found |= {_INPUTS: graph.inputs} if graph.inputs else {}
    if graph.draws:
        found[_DRAWS] = [[draw.name, draw.probability, draw.per_sequence] for draw in graph.draws]
    found |= {_FIRST: graph.learned_first} if graph.learned_first else {}
    found |= {"nodes": nodes, "output": index[graph.output]}
    if graph.others:
        found |= {_OUTPUTS: graph.outputs, _OTHERS: [index[node] for node in graph.others]}
    found["new_states"] = [index[node] for node in graph.new_states]
    if graph.widths:
        found[_WIDTHS] = {name: str(units) for name, units in graph.widths}
    # They say in what order nodes stand, and so in what order a kernel adds.
    found["names"] = [[index[node], name] for node, name in graph.names if node in index]
    return json.dumps(found, separators=(",", ":"))


def restore(text: str) -> StepGraph:
    """The graph that `store` wrote; checked, since the text may come from anybody.

    Raises:
        GraphError: the text is no graph, or one that breaks a rule, or larger than any cell's.
    """
    try:
        return verify(_read(text))
    # RecursionError: brackets within brackets, deeper than any graph has them.
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise GraphError(f"the text of a graph cannot be read: {_shortened(error)}") from None


def _read(text: str) -> StepGraph:
    if len(text) > MOST_CHARACTERS:
        raise GraphError(
            f"the text of a graph has {len(text)} characters; at most {MOST_CHARACTERS} are read"
        )
    found = json.loads(text)
    if len(found["nodes"]) > MOST_NODES:
        raise GraphError(f"a graph has {len(found['nodes'])} nodes; at most {MOST_NODES} are read")
    nodes: list[Node] = []
    for op, attribute, *inputs in found["nodes"]:
        # A leaf's attribute is checked by `verify`; what carries none may not bring a text along.
        *marks, op = op.split(" ")
        operands = tuple([_at(nodes, i) for i in inputs])
        nodes.append(Node(OPS[op], operands, attribute, **_marked(marks)))
    names = {each: _names(found[each]) for each in _TUPLES}
    return StepGraph(
        name=_text(found["name"]),
        **names,
        output=_at(nodes, found["output"]),
        new_states=tuple([_at(nodes, i) for i in found["new_states"]]),
        names=tuple([(_at(nodes, i), _text(name)) for i, name in found["names"]]),
        inputs=_names(found.get(_INPUTS, [])),
        draws=tuple([Draw(_text(name), *law) for name, *law in found.get(_DRAWS, [])]),
        learned_first=_names(found.get(_FIRST, [])),
        outputs=_names(found.get(_OUTPUTS, [])),
        others=tuple([_at(nodes, i) for i in found.get(_OTHERS, [])]),
        widths=tuple([(name, units_of(_text(said))) for name, said in found.get(_WIDTHS, {}).items()]),
    )


def _word(node: Node) -> str:
    return " ".join(filter(None, (_LINEAR * node.linear, node.form and str(node.form), node.op.name)))


def _marked(marks: list[str]) -> dict[str, Any]:
    """What stands before the op of a gate."""
    found: dict[str, Any] = {"linear": marks[:1] == [_LINEAR]}
    forms = marks[found["linear"] :]
    if len(forms) > 1:
        raise ValueError("a gate has two forms")
    return found | {"form": form_of(forms[0]) if forms else None}


def _at(nodes: list[Node], number: Any) -> Node:
    """A node that stands before; no number counts from the end, and neither true nor 1.0 is one."""
    if type(number) is not int or not 0 <= number < len(nodes):
        raise ValueError(f"{number!r} is the number of no earlier node")
    return nodes[number]


def _names(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise TypeError("names stand in a list")
    return tuple([_text(each) for each in found])


def _text(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError(f"a name is a text, not {a_or_an(type(found).__name__)}")
    return found


def _shortened(error: Exception) -> str:
    told = repr(error)
    return told if len(told) <= 200 else f"{told[:200]}..."
