"""The checker that runs between the stages: a graph that passes is well formed, whoever made it."""

from __future__ import annotations

from cellwise.graph.expr import Node, Shape, StepGraph
from cellwise.graph.ops import CONSTANT, INPUT, OPS, PROJECT, SCALAR, STATE, VECTOR

_NAMES = {INPUT: "gates", PROJECT: "gates", STATE: "states", VECTOR: "vectors", SCALAR: "scalars"}


class GraphError(AssertionError):
    """A graph is malformed: a mistake in cellwise, not in the user's cell."""


def verify(graph: StepGraph) -> StepGraph:
    """Return `graph` as it is, or raise GraphError with the node that breaks a rule."""
    seen: set[Node] = set()
    keys: set[tuple[object, ...]] = set()
    for node in graph.nodes:
        for problem in _problems(graph, node, seen):
            raise GraphError(f"{graph.name}: {node.op} {node.attribute}: {problem}")
        key = (node.op, node.inputs, type(node.attribute), str(node.attribute))
        if key in keys:
            raise GraphError(
                f"{graph.name}: {node.op} {node.attribute} stands twice; equal nodes must be one"
            )
        keys.add(key)
        seen.add(node)
    if len(graph.new_states) != len(graph.states):
        raise GraphError(f"{graph.name}: {len(graph.states)} states, {len(graph.new_states)} new values")
    for root in (graph.output, *graph.new_states):
        if root.shape is not Shape.BATCH or root.is_mask:
            raise GraphError(f"{graph.name}: an output or a state must be a real value of shape (B, H)")
    return graph


def _problems(graph: StepGraph, node: Node, seen: set[Node]) -> list[str]:
    found = []
    if OPS.get(node.op.name) is not node.op:
        found.append("is not an op of the table")
    if len(node.inputs) != node.op.operands:
        found.append(f"takes {node.op.operands} operands, has {len(node.inputs)}")
    if any(i not in seen for i in node.inputs):
        found.append("stands before an operand")
    if node.op in _NAMES and node.attribute not in getattr(graph, _NAMES[node.op]):
        found.append(f"names none of the {_NAMES[node.op]}")
    if node.op is CONSTANT and not isinstance(node.attribute, float):
        found.append("a constant carries a float")
    masks = [i.is_mask for i in node.inputs]
    if (masks and masks[0] != (node.op.name == "where")) or any(masks[1:]):
        found.append("a mask may only be the first operand of where")
    if node.op is PROJECT and any(i.shape is not Shape.BATCH for i in node.inputs):
        found.append("projects a value that is not of shape (B, H)")
    return found
