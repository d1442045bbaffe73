"""A graph as text that another process can read: in an exported program, for one. JSON, no code."""

from __future__ import annotations

import json
from typing import Any

from cellwise.graph.expr import Node, StepGraph
from cellwise.graph.ops import OPS
from cellwise.graph.verify import GraphError, verify

_TUPLES = ("gates", "states", "vectors", "scalars")


def store(graph: StepGraph) -> str:
    """The graph as text.

    >>> from cellwise import cells
    >>> graph = cells.get("gru").graph
    >>> restore(store(graph)).fingerprint == graph.fingerprint
    True
    """
    place = {node: number for number, node in enumerate(graph.nodes)}
    nodes = [[node.op.name, node.attribute, *(place[i] for i in node.inputs)] for node in graph.nodes]
    found: dict[str, Any] = {"name": graph.name, **{name: getattr(graph, name) for name in _TUPLES}}
    found |= {"nodes": nodes, "output": place[graph.output]}
    found["new_states"] = [place[node] for node in graph.new_states]
    # They say in what order nodes stand, and so in what order a kernel adds.
    found["names"] = [[place[node], name] for node, name in graph.names if node in place]
    return json.dumps(found, separators=(",", ":"))


def restore(text: str) -> StepGraph:
    """The graph that `store` wrote; checked, since the text may come from anybody.

    Raises:
        GraphError: the text is no graph, or one that breaks a rule.
    """
    try:
        found = json.loads(text)
        nodes: list[Node] = []
        for op, attribute, *inputs in found["nodes"]:
            assert all(0 <= i < len(nodes) for i in inputs)
            nodes.append(Node(OPS[op], tuple(nodes[i] for i in inputs), attribute))
        gates, states, vectors, scalars = (tuple(map(str, found[name])) for name in _TUPLES)
        new_states = tuple(nodes[i] for i in found["new_states"])
        given = tuple((nodes[i], str(name)) for i, name in found["names"])
        graph = StepGraph(
            str(found["name"]), gates, states, vectors, scalars, nodes[found["output"]], new_states, given
        )
    except (ValueError, TypeError, LookupError, AssertionError) as error:
        raise GraphError(f"the text of a graph cannot be read: {error!r}") from None
    return verify(graph)
