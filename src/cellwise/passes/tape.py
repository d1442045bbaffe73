"""What the forward pass saves of a step for its derivative, and what the backward pass computes again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from cellwise.graph import Node, Shape
from cellwise.graph.ops import INPUT, OPS, PROJECT, STATE, Kind


def saved_for(step: Iterable[Node], needed: Iterable[Node]) -> tuple[Node, ...]:
    """The values of `step` that must be saved so that `needed`, nodes of the step, can be had again cheaply.

    States before the step are saved anyway, as operands of products or as carried values, and are among the result
    if they are needed; parameters and numbers are at hand.
    """
    step, needed = tuple(step), tuple(needed)
    inside, whole = set(step), _sums_of_products(step)
    # The largest of a row is looked for among the values that it was found in: computed again from saved values, which
    # may be rounded, none of them may be as large.
    whole |= {
        node.inputs[0] for node in needed if node.op is OPS["amax"] and node.inputs[0].shape is Shape.BATCH
    }
    saved: dict[Node, None] = {}
    done: set[Node] = set()
    todo = [node for node in needed if node in inside]
    while todo:
        node = todo.pop()
        if node in done:
            continue
        done.add(node)
        # Cheaper to compute again from saved values than to save: a few instructions against a trip to memory.
        if node.op.kind is Kind.SIMPLE and node not in whole:
            todo += node.inputs
        elif node.op in (INPUT, STATE) or node.inputs:
            saved[node] = None
    return tuple(saved)


def _sums_of_products(step: Sequence[Node]) -> set[Node]:
    """Sums x.g + v.g that nothing but the sum reads the parts of: they are one number of a product, saved as one.

    Only where rows are taken together: the derivative of what else is done to them as a rule reads its result.
    """
    if not any(node.op.kind is Kind.REDUCTION for node in step):
        return set()
    uses = Counter(i for node in step for i in node.inputs)
    return {
        node
        for node in step
        if node.op is OPS["add"]
        and {i.op for i in node.inputs} == {INPUT, PROJECT}
        and all(uses[i] == 1 for i in node.inputs)
    }
