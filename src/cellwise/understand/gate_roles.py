"""What each gate of a cell is for, read off its equations, never off its name.

| role | what the equations say |
| --- | --- |
| update | both v and 1 - v multiply something, one of them an old state: the two are mixed |
| forget | v multiplies an old state on its way to a new one |
| reset | v multiplies an old state, or its projection, before it enters another gate |
| output | v multiplies what comes from a new state |
| input | v multiplies a candidate on its way to a state |
| candidate | it is no gate: it is what may be written into a state |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from cellwise.graph.expr import Node, Shape, StepGraph, postorder
from cellwise.graph.ops import CONSTANT, INPUT, OPS, PROJECT, STATE

__all__ = ["ROLES", "is_gate", "role_of"]

ROLES = ("forget", "input", "output", "update", "reset", "candidate", "other")
# Ops through which a value is passed on in proportion.
_LINEAR = {"add", "sub", "neg", "mul", "div"}


def role_of(graph: StepGraph, value: Node) -> str:
    """The role of a value of the step, one of ROLES."""
    users = _users(graph)
    if not _may_gate(value):
        return _without_gate(graph, users, value)
    uses = list(_products(users, value))
    found = [_of_product(graph, users, product, other) for product, other, _ in uses]
    complements = {complement for _, _, complement in uses}
    if len(complements) == 2 and "forget" in found:
        return "update"
    for role in ("forget", "output", "reset", "input"):
        if role in found:
            return role
    return _without_gate(graph, users, value) if not found else "other"


def is_gate(graph: StepGraph, value: Node) -> bool:
    """Whether a value is a gate: it cannot be negative, and multiplies something."""
    return _may_gate(value) and any(True for _ in _products(_users(graph), value))


def _may_gate(value: Node) -> bool:
    return value.op.may_gate or (bool(value.function) and not value.is_given)


def _users(graph: StepGraph) -> dict[Node, list[Node]]:
    users: dict[Node, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        for each in dict.fromkeys(node.inputs):
            users[each].append(node)
    return users


def _products(users: dict[Node, list[Node]], value: Node) -> Iterator[tuple[Node, Node, bool]]:
    """The products that a value is a factor of: (product, other factor, whether it is 1 - value that multiplies)."""
    for user in users[value]:
        if user.op is OPS["mul"] and user.inputs[0] is not user.inputs[1]:
            yield user, user.inputs[user.inputs[0] is value], False
        if user.op is OPS["sub"] and user.inputs[0].op is CONSTANT and user.inputs[0].attribute == 1.0:
            for product, other, _ in _products(users, user):
                yield product, other, True


def _of_product(graph: StepGraph, users: dict[Node, list[Node]], product: Node, other: Node) -> str:
    before = postorder([other])
    old_state = other.op is STATE or (
        bool(_old_states(other)) and not any(node.op is INPUT or node in graph.part_nodes for node in before)
    )
    if old_state or other.op is PROJECT:
        return "forget" if other.op is not PROJECT and _reaches_state(graph, users, product) else "reset"
    made_from_new = any(node in before for node in graph.new_states if node.op is not STATE)
    if made_from_new and _reaches_state(graph, users, product, (graph.output,)):
        return "output"
    return "input" if _reaches_state(graph, users, product) else "reset"


def _old_states(node: Node) -> set[str]:
    """The old states that a value is made of elementwise, without a matrix product."""
    found: set[str] = set()
    todo = [node]
    while todo:
        each = todo.pop()
        if each.op is STATE:
            found.add(str(each.attribute))
        elif each.op is not PROJECT:
            todo += each.inputs
    return found


def _reaches_state(
    graph: StepGraph, users: dict[Node, list[Node]], value: Node, ends: tuple[Node, ...] = ()
) -> bool:
    """Whether a value is passed on, in proportion, to a new state or the output; or to one of `ends`."""
    todo, seen = [value], set[Node]()
    while todo:
        node = todo.pop()
        if node in (ends or (*graph.new_states, graph.output)):
            return True
        if node not in seen:
            seen.add(node)
            todo += [user for user in users[node] if user.op.name in _LINEAR]
    return False


def _without_gate(graph: StepGraph, users: dict[Node, list[Node]], value: Node) -> str:
    """A value that opens nothing is a candidate, unless it only makes a gate: then it has that gate's role."""
    todo, seen = [value], set[Node]()
    while todo:
        node = todo.pop(0)
        if node in graph.new_states:
            continue
        for user in users[node]:
            # What a row has in common with all its units says nothing of one of them.
            if user not in seen and user.op is not PROJECT and user.shape is not Shape.ROWS:
                seen.add(user)
                todo.append(user)
                if is_gate(graph, user):
                    return role_of(graph, user)
    return "candidate"
