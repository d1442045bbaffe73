"""What a picture leaves out where a row is taken together: a normalization is drawn as a few blocks, not as twenty.

One block for each number of a row that meets units, whatever it takes to make it; and one for what units go through
that meet such numbers and parameters alone, (v - mean) · scale ⊙ gain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cellwise.graph.expr import Node, Shape
from cellwise.graph.ops import PROJECT, STATE, Kind

__all__ = ["hidden", "meets_rows", "units_of"]

_AFFINE = ("add", "sub", "mul", "div")


def hidden(
    nodes: Sequence[Node],
    users: Mapping[Node, Sequence[Node]],
    shown: Collection[Node],
    normalized: Collection[Node],
) -> tuple[set[Node], set[Node]]:
    """The nodes of a step that are drawn within a block of a later one; and the numbers of a row that are not drawn.

    Args:
        shown: those that have a block anyway.
        normalized: what gates are told to be "of normalized"; numbers of a row that serve these alone are not drawn.
    """
    found: set[Node] = set()
    of_rows: set[Node] = set()  # that only numbers of a row are made of
    for node in reversed(nodes):
        uses = users.get(node, ())
        if node in shown or not uses or node.op is STATE or not node.shape.has_rows:
            continue
        if node.shape is Shape.ROWS:
            if all(user.shape is Shape.ROWS for user in uses):
                found.add(node)
            continue
        if all(user in of_rows or user.op.kind is Kind.REDUCTION for user in uses):
            of_rows.add(node)
            continue
        others = [user for user in uses if user not in of_rows and user.op.kind is not Kind.REDUCTION]
        if len(others) == 1 and units_of(node) and units_of(others[0]) and meets_rows(node):
            found.add(node)
    within = set[Node]()  # nodes on the way to what is normalized
    for node in normalized:
        while node not in within:
            within.add(node)
            node = next((each for each in units_of(node) if each in found), node)
    for node in reversed(nodes):
        uses = users.get(node, ())
        if node.shape is Shape.ROWS and uses and all(user in within or user in of_rows for user in uses):
            within.add(node)
    return found | of_rows, {node for node in within if node.shape is Shape.ROWS}


def units_of(node: Node) -> tuple[Node, ...]:
    """The one operand with units of what otherwise meets numbers and parameters; none if it is anything else."""
    operands = tuple(each for each in node.inputs if each.shape is Shape.BATCH)
    return operands if node.op.name in _AFFINE and len(operands) == 1 and node.op is not PROJECT else ()


def meets_rows(node: Node) -> bool:
    """Whether numbers of a row have a part in it, or in the operand that it goes on from."""
    while True:
        if any(each.shape is Shape.ROWS for each in node.inputs):
            return True
        if not units_of(node):
            return False
        (node,) = units_of(node)
