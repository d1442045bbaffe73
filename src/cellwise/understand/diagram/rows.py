"""What a picture leaves out where a row is taken together: a normalization is drawn as a few blocks, not as twenty.

One block for each number of a row that meets units, whatever it takes to make it; and one for what units go through
that meet such numbers and parameters alone, (v - mean) · scale ⊙ gain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cellwise.graph.expr import Node, Shape
from cellwise.graph.ops import PROJECT, STATE, Kind

__all__ = ["hidden", "units_of"]

_AFFINE = ("add", "sub", "mul", "div")


def hidden(nodes: Sequence[Node], users: Mapping[Node, Sequence[Node]], shown: Collection[Node]) -> set[Node]:
    """The nodes of a step that are drawn within a block of a later one. `shown`: those that have one anyway."""
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
        if len(others) == 1 and units_of(node) and units_of(others[0]) and _meets_rows(node):
            found.add(node)
    return found | of_rows


def units_of(node: Node) -> tuple[Node, ...]:
    """The one operand with units of what otherwise meets numbers and parameters; none if it is anything else."""
    operands = tuple(each for each in node.inputs if each.shape is Shape.BATCH)
    return operands if node.op.name in _AFFINE and len(operands) == 1 and node.op is not PROJECT else ()


def _meets_rows(node: Node) -> bool:
    """Whether numbers of a row have a part in it, or in the operand that it goes on from."""
    while True:
        if any(each.shape is Shape.ROWS for each in node.inputs):
            return True
        if not units_of(node):
            return False
        (node,) = units_of(node)
