"""What the forward pass keeps of a step for its derivative, and what the backward pass computes again."""

from __future__ import annotations

from collections.abc import Iterable

from cellwise.graph import Node
from cellwise.graph.ops import INPUT, STATE, Kind


def kept_for(step: Iterable[Node], wanted: Iterable[Node]) -> tuple[Node, ...]:
    """The values of `step` that must be kept so that `wanted`, nodes of the step, can be had again cheaply.

    States before the step are kept anyway, as operands of products or as carried values, and are among the result
    if they are needed; parameters and numbers are at hand.
    """
    inside = set(step)
    kept: dict[Node, None] = {}
    done: set[Node] = set()
    todo = [node for node in wanted if node in inside]
    while todo:
        node = todo.pop()
        if node in done:
            continue
        done.add(node)
        # Cheaper to compute again from kept values than to keep: a few instructions against a trip to memory.
        if node.op.kind is Kind.SIMPLE:
            todo += node.inputs
        elif node.op in (INPUT, STATE) or node.inputs:
            kept[node] = None
    return tuple(kept)
