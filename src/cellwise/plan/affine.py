"""Programs whose states are affine in themselves, number by number: which they are, and the slopes.

With value = slope * state + rest, of which slope and rest know no state, the steps of many times compose: whoever has
the product of their slopes and where they lead from zero has all of them (Blelloch 1990, "Prefix sums and their
applications").
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

from cellwise.graph import Node
from cellwise.graph.expr import postorder
from cellwise.graph.ops import CONSTANT, OPS
from cellwise.plan.buffers import X
from cellwise.plan.program import Program

_ONE, _ZERO = Node(CONSTANT, (), 1.0), Node(CONSTANT, (), 0.0)

# The slope of a node, None for zero.
Slope = Node | None


class NotAffineError(Exception):
    """A value is no affine function of a state alone."""


@lru_cache(maxsize=512)
def slopes_of(program: Program) -> Mapping[str, Node] | None:
    """By the name of a state's buffer before a step the slope of its next value; None if there is a product in time,
    or a state that is not affine in itself, or knows another.
    """
    (stage, *others) = program.stages
    if others or any(term.operand != X for term in stage.terms):
        return None
    names = {after.name: before.name for before, after in program.states}

    def state_of(node: Node) -> str | None:
        name = program.reads[node].buffer.name if node in program.reads else None
        return name if name in names.values() else None

    found = {node for node in program.reads if node not in {*stage.nodes, *stage.accumulators}}
    values = {names[slot.buffer.name]: node for node, slot in stage.writes if slot.buffer.name in names}
    try:
        return {name: _Slopes(name, state_of, found).of_all(value) or _ZERO for name, value in values.items()}
    except NotAffineError:
        return None


class _Slopes:
    def __init__(self, state: str, state_of: Callable[[Node], str | None], reads: Collection[Node]) -> None:
        self._state, self._state_of, self._reads = state, state_of, reads
        self._known: dict[Node, Slope] = {}

    def of_all(self, value: Node) -> Slope:
        """That of a value, after those of all that it is made from: in this order nothing recurses through it."""
        for node in postorder([value], self._reads):
            self.of(node)
        return self.of(value)

    def of(self, node: Node) -> Slope:
        if node not in self._known:
            self._known[node] = self._found(node)
        return self._known[node]

    def _found(self, node: Node) -> Slope:
        state = self._state_of(node)
        if state is not None:
            if state != self._state:
                raise NotAffineError
            return _ONE
        if node in self._reads:
            return None
        inner = [self.of(each) for each in node.inputs]
        if not any(inner):
            return None
        rule = RULES.get(node.op.name)
        if rule is None:
            raise NotAffineError
        return rule(node, inner)


def _node(name: str, *inputs: Node) -> Node:
    return Node(OPS[name], inputs)


def _sum(a: Slope, b: Slope) -> Slope:
    return _node("add", a, b) if a and b else a or b


def _negative(a: Slope) -> Slope:
    return _node("neg", a) if a else None


def _product(node: Node, inner: list[Slope]) -> Slope:
    (a, b), (left, right) = node.inputs, inner
    if left and right:
        raise NotAffineError
    return _times(left, b) if left else _times(right, a)


def _times(slope: Slope, factor: Node) -> Slope:
    return factor if slope is _ONE else _node("mul", slope, factor) if slope else None


def _quotient(node: Node, inner: list[Slope]) -> Slope:
    if inner[1] or not inner[0]:
        raise NotAffineError
    return _node("div", inner[0], node.inputs[1])


def _choice(node: Node, inner: list[Slope]) -> Slope:
    if inner[0]:
        raise NotAffineError
    return _node("where", node.inputs[0], inner[1] or _ZERO, inner[2] or _ZERO)


# op -> the slope of a node from those of its operands, of which one at least is not zero.
RULES: dict[str, Callable[[Node, list[Slope]], Slope]] = {
    "add": lambda node, inner: _sum(*inner),
    "sub": lambda node, inner: _sum(inner[0], _negative(inner[1])),
    "neg": lambda node, inner: _negative(inner[0]),
    "mul": _product,
    "div": _quotient,
    "where": _choice,
    "stop_gradient": lambda node, inner: inner[0],
}
