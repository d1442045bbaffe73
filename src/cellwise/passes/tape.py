"""What the forward pass saves of a step for its derivative, and what the backward pass computes again."""

from __future__ import annotations

from collections.abc import Iterable

from cellwise.graph import Node
from cellwise.graph.ops import INPUT, STATE, Kind


def saved_for(step: Iterable[Node], needed: Iterable[Node]) -> tuple[Node, ...]:
    """The values of `step` that must be saved so that `needed`, nodes of the step, can be had again cheaply.

    States before the step are saved anyway, as operands of products or as carried values, and are among the result
    if they are needed; parameters and numbers are at hand.
    """
    inside = set(step)
    saved: dict[Node, None] = {}
    done: set[Node] = set()
    todo = [node for node in needed if node in inside]
    while todo:
        node = todo.pop()
        if node in done:
            continue
        done.add(node)
        # Cheaper to compute again from saved values than to save: a few instructions against a trip to memory.
        if node.op.kind is Kind.SIMPLE:
            todo += node.inputs
        elif node.op in (INPUT, STATE) or node.inputs:
            saved[node] = None
    return tuple(saved)
