"""The backward step of a cell as a graph: reverse mode, symbolic, one rule per op in one table.

The derivative is written with the same ops as the step, on the step's own nodes, whose values the tape keeps or the
backward pass computes again. New leaves are the incoming gradients; new ops are `pullback`, the transposed product
of gates, and `share`, the part that a unit has in the gradient of a mean.

Where a number of a row met all its units, its gradient is the sum of theirs. That sum is taken once, of all that
arrives at the units, and factors that are numbers of a row stand outside of it, so that few sums wait for others.
Gradients at parameters are not summed here: one of a row is shared out among its units, which are summed in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import (
    BESIDE,
    CONSTANT,
    DRAW,
    INPUT,
    OPS,
    PRODUCT,
    PROJECT,
    SCALAR,
    STATE,
    VECTOR,
    Kind,
    Op,
    Shape,
)
from cellwise.graph.units import HIDDEN, Units
from cellwise.graph.widths import widths_of

# The gradient that arrives at the output, or at a new state (its name, and no state is called as the output is here).
GRADIENT = Op("gradient", Kind.LEAF, 0, "d{a}", shape=Shape.BATCH)
# Sum over gates g of the transposed recurrent rows of g times the gradient at its product; a gate per operand.
PULLBACK = Op("pullback", Kind.MATMUL, -1, "pullback {a}", shape=Shape.BATCH)
# A number of a row over H: the share of each unit in the gradient of a mean. Of other units than H it carries them;
# kernels see none of these.
SHARE = Op("share", Kind.SIMPLE, 1, "{0} / H", PRODUCT)
# A step that is not the whole of a cell's may begin with, and end in, one number of each row.
ROW, ROW_GRADIENT = (replace(op, name=f"row {op.name}", shape=Shape.ROWS) for op in (STATE, GRADIENT))
OUTPUT = "the output"


def arriving_outputs(graph: StepGraph) -> dict[str, int]:
    """What the gradients are called that arrive at outputs; the number of each output."""
    return {OUTPUT: 0, **{f"{OUTPUT} {number}": number for number in range(1, 1 + len(graph.others))}}


@dataclass(frozen=True, eq=False)
class Derivative:
    """Gradients of one step. A missing entry is zero.

    `inputs` and `products` are the gradients at `x.g` and at the product nodes, (B, H) each; `states` those at the
    states before the step; `parameters` those at vectors and scalars, (B, H) each, to be summed over what the
    parameter lacks; `beside` those at inputs beside x, (B, H) each. What was drawn has none.
    """

    graph: StepGraph
    inputs: dict[Node, Node]
    products: dict[Node, Node]
    states: dict[str, Node]
    parameters: dict[Node, Node]
    beside: dict[Node, Node]


class _Writer:
    """Makes nodes, equal ones once, and leaves out what multiplies by one or adds nothing."""

    def __init__(self, step: Iterable[Node], units: Mapping[Node, Units | None]) -> None:
        self._step = set(step)
        self._units = units
        self._made: dict[tuple[object, ...], Node] = {}

    def node(self, op: Op, *inputs: Node, attribute: str | float | None = None) -> Node:
        key = (op, inputs, str(attribute))
        if key not in self._made:
            self._made[key] = Node(op, inputs, attribute)
        return self._made[key]

    def number(self, value: float) -> Node:
        return self.node(CONSTANT, attribute=value)

    def share(self, gradient: Node, of: Node) -> Node:
        """The share of each unit of a value in the gradient of its mean."""
        units = self._units.get(of, HIDDEN)
        return self.node(SHARE, gradient, attribute=None if units == HIDDEN else str(units))

    def __getattr__(self, name: str) -> Callable[..., Node]:
        return lambda *inputs: self.node(OPS[name], *inputs)

    def sum_of_units(self, value: Node) -> Node:
        """The sum over the units of a value that differs from unit to unit."""
        groups: dict[tuple[Node | None, bool], Node] = {}
        for part, factor, is_negative in self._terms(value):
            key = (factor, is_negative)
            groups[key] = self.add(groups[key], part) if key in groups else part
        total: Node | None = None
        for (factor, is_negative), part in groups.items():
            found = self.sum(part) if factor is None else self.mul(self.sum(part), factor)
            if total is None:
                total = self.neg(found) if is_negative else found
            else:
                total = self.sub(total, found) if is_negative else self.add(total, found)
        assert total is not None
        return total

    def _terms(self, value: Node) -> list[tuple[Node, Node | None, bool]]:
        """The summands of a gradient, each without its factor that is one for the whole row, and whether it is taken
        off. Values of the step are not taken apart: v - mean(v) has a small sum, v and mean(v) have large ones.
        """
        found: list[tuple[Node, Node | None, bool]] = []
        todo: list[tuple[Node, Node | None, bool]] = [(value, None, False)]
        for _ in range(_MOST_PARTS):
            if not todo:
                return found
            node, factor, is_negative = todo.pop()
            name = "" if node in self._step else node.op.name
            first, second = (*node.inputs, None, None)[:2]
            if not node.shape.has_units:
                both = node if factor is None else self.mul(node, factor)
                found.append((self.number(1.0), both, is_negative))
            elif name in ("add", "sub") and first is not None and second is not None:
                todo += [(second, factor, is_negative != (name == "sub")), (first, factor, is_negative)]
            elif name == "neg" and first is not None:
                todo.append((first, factor, not is_negative))
            elif name == "mul" and first is not None and second is not None and _splits(first, second):
                row, rest = (second, first) if first.shape.has_units else (first, second)
                todo.append((rest, row if factor is None else self.mul(row, factor), is_negative))
            else:
                found.append((node, factor, is_negative))
        return [(value, None, False)]  # so many that they are better summed as they are


def _splits(first: Node, second: Node) -> bool:
    """Whether one of two factors differs from unit to unit, and the other does not."""
    return first.shape.has_units != second.shape.has_units


# Summands into which a gradient is taken apart.
_MOST_PARTS = 128

_Rule = Callable[..., tuple[Node | None, ...]]


def _minmax(w: _Writer, g: Node, a: Node, b: Node, picks_a: Node, picks_b: Node) -> tuple[Node, Node]:
    # Equal operands share the gradient, as torch does it.
    zero, half = w.number(0.0), w.mul(g, w.number(0.5))
    da = w.where(picks_a, g, w.where(picks_b, zero, half))
    db = w.where(picks_b, g, w.where(picks_a, zero, half))
    return da, db


def _clamp(w: _Writer, g: Node, y: Node, v: Node, low: Node, high: Node) -> tuple[Node, Node, Node]:
    zero = w.number(0.0)
    crossed = w.less(high, low)
    dv = w.where(w.less(v, low), zero, w.where(w.less(high, v), zero, g))
    dlow = w.where(crossed, zero, w.where(w.less(v, low), g, zero))
    dhigh = w.where(crossed, g, w.where(w.less(high, v), g, zero))
    return dv, dlow, dhigh


def _amax(w: _Writer, g: Node, y: Node, a: Node) -> tuple[Node]:
    # Equal units share the gradient, as torch does it.
    is_largest = w.where(w.less(a, y), w.number(0.0), w.number(1.0))
    return (w.mul(is_largest, w.div(g, w.sum(is_largest))),)


def _gelu(w: _Writer, g: Node, y: Node, a: Node) -> tuple[Node]:
    below = w.mul(w.number(0.5), w.add(w.number(1.0), w.erf(w.mul(w.number(math.sqrt(0.5)), a))))
    density = w.mul(w.number(1 / math.sqrt(2 * math.pi)), w.exp(w.mul(w.number(-0.5), w.mul(a, a))))
    return (w.mul(g, w.add(below, w.mul(a, density))),)


def _silu(w: _Writer, g: Node, y: Node, a: Node) -> tuple[Node]:
    opening = w.sigmoid(a)
    return (w.mul(g, w.mul(opening, w.add(w.number(1.0), w.mul(a, w.sub(w.number(1.0), opening))))),)


def _pow(w: _Writer, g: Node, y: Node, a: Node, b: Node) -> tuple[Node, Node]:
    zero = w.number(0.0)
    # To the power of 0 all is 1, that of 0 too, whatever the power of -1 is.
    da = w.mul(g, w.mul(b, w.pow(a, w.sub(b, w.number(1.0)))))
    da = w.where(w.less(b, zero), da, w.where(w.less(zero, b), da, w.mul(zero, b)))
    # The logarithm of 0 is infinite, and 0 to any power is 0. (A product, so that NaN stays.)
    db = w.mul(g, w.mul(y, w.log(a)))
    at_zero = w.where(w.less_equal(zero, b), w.mul(g, a), db)
    return da, w.where(w.less(zero, a), db, w.where(w.less(a, zero), db, at_zero))


# op -> (writer, gradient at the result, the result, its operands...) -> gradient at each operand.
RULES: dict[str, _Rule] = {
    "add": lambda w, g, y, a, b: (g, g),
    "sub": lambda w, g, y, a, b: (g, w.neg(g)),
    "mul": lambda w, g, y, a, b: (w.mul(g, b), w.mul(g, a)),
    "div": lambda w, g, y, a, b: (w.div(g, b), w.neg(w.div(w.mul(g, y), b))),
    "neg": lambda w, g, y, a: (w.neg(g),),
    "exp": lambda w, g, y, a: (w.mul(g, y),),
    "log": lambda w, g, y, a: (w.div(g, a),),
    "sqrt": lambda w, g, y, a: (w.div(g, w.add(y, y)),),
    "sigmoid": lambda w, g, y, a: (w.mul(w.mul(g, y), w.sub(w.number(1.0), y)),),
    "tanh": lambda w, g, y, a: (w.mul(g, w.sub(w.number(1.0), w.mul(y, y))),),
    "relu": lambda w, g, y, a: (w.where(w.less_equal(y, w.number(0.0)), w.number(0.0), g),),
    # Above 20 torch's softplus is the value itself.
    "softplus": lambda w, g, y, a: (w.where(w.less(w.number(20.0), a), g, w.mul(g, w.sigmoid(a))),),
    "sin": lambda w, g, y, a: (w.mul(g, w.cos(a)),),
    "cos": lambda w, g, y, a: (w.neg(w.mul(g, w.sin(a))),),
    "erf": lambda w, g, y, a: (w.mul(g, w.mul(w.number(2 / math.sqrt(math.pi)), w.exp(w.neg(w.mul(a, a))))),),
    "gelu": _gelu,
    "silu": _silu,
    "elu": lambda w, g, y, a: (w.where(w.less(w.number(0.0), a), g, w.mul(g, w.exp(a))),),
    "hard_sigmoid": lambda w, g, y, a: (
        w.where(
            w.less_equal(w.number(-3.0), a),
            w.where(w.less_equal(a, w.number(3.0)), w.mul(g, w.number(1 / 6)), w.number(0.0)),
            w.number(0.0),
        ),
    ),
    "hard_tanh": lambda w, g, y, a: (
        w.where(
            w.less_equal(a, w.number(-1.0)),
            w.number(0.0),
            w.where(w.less_equal(w.number(1.0), a), w.number(0.0), g),
        ),
    ),
    "pow": _pow,
    "floor": lambda w, g, y, a: (None,),
    "sign": lambda w, g, y, a: (None,),
    "abs": lambda w, g, y, a: (
        w.where(w.less(w.number(0.0), a), g, w.where(w.less(a, w.number(0.0)), w.neg(g), w.mul(g, a))),
    ),
    "minimum": lambda w, g, y, a, b: _minmax(w, g, a, b, w.less(a, b), w.less(b, a)),
    "maximum": lambda w, g, y, a, b: _minmax(w, g, a, b, w.less(b, a), w.less(a, b)),
    "less": lambda w, g, y, a, b: (None, None),
    "less_equal": lambda w, g, y, a, b: (None, None),
    "where": lambda w, g, y, m, a, b: (
        None,
        w.where(m, g, w.number(0.0)),
        w.where(m, w.number(0.0), g),
    ),
    "clamp": _clamp,
    "stop_gradient": lambda w, g, y, a: (None,),
    "sum": lambda w, g, y, a: (g,),
    "mean": lambda w, g, y, a: (w.share(g, a),),
    "amax": _amax,
}


@lru_cache(maxsize=512)
def differentiate(graph: StepGraph) -> Derivative:
    """The gradients of one step at everything that it reads, from those at its output and its new states."""
    if not graph.widths:
        return derivative_of(graph, {})
    widths = widths_of(graph)
    return derivative_of(graph, {**widths.values, **widths.beside})


def derivative_of(graph: StepGraph, units: Mapping[Node, Units | None]) -> Derivative:
    """The same, of a step whose values have these units, H where nothing is said; None for one number a row."""
    w = _Writer(graph.nodes, units)
    arriving: dict[Node, Node] = {}
    # A value without units of its own -> what arrives at it from units, by how many these are: what arrives at a number
    # of a row is summed over them, and so is what arrives from units of several widths.
    at_units: dict[Node, dict[Units | None, Node]] = {}

    def arrive(node: Node, gradient: Node) -> None:
        arriving[node] = w.add(arriving[node], gradient) if node in arriving else gradient

    def arrive_from_units(node: Node, gradient: Node, user: Node) -> None:
        found, of_user = at_units.setdefault(node, {}), units.get(user, HIDDEN)
        found[of_user] = w.add(found[of_user], gradient) if of_user in found else gradient

    def sum_up(node: Node, found: Mapping[Units | None, Node]) -> None:
        for gradient in found.values():
            if node.shape is Shape.ROWS:
                arrive(node, w.sum_of_units(gradient))
            elif len(found) == 1:
                arrive(node, gradient)
            else:
                arrive(node, w.node(SHARE, w.sum_of_units(gradient)))

    for output, name in zip((graph.output, *graph.others), arriving_outputs(graph), strict=True):
        arrive(output, w.node(GRADIENT, attribute=name))
    for state, node in zip(graph.states, graph.new_states, strict=True):
        arrive(node, w.node(ROW_GRADIENT if node.shape is Shape.ROWS else GRADIENT, attribute=state))
    products: dict[Node, Node] = {}
    pulled: dict[Node, list[Node]] = {}  # operand -> its product nodes whose gradient is complete
    for node in reversed(graph.nodes):
        # All users of a node stand after it, so that its own gradient, its pullback too, is complete here.
        if node in pulled:
            arrive(node, _pullback(w, graph, pulled[node], products))
        if node in at_units:
            sum_up(node, at_units[node])
        if node not in arriving or not node.inputs:
            continue
        gradient = arriving[node]
        if node.op is PROJECT:
            products[node] = gradient
            pulled.setdefault(node.inputs[0], []).append(node)
            continue
        for operand, each in zip(
            node.inputs, RULES[node.op.name](w, gradient, node, *node.inputs), strict=True
        ):
            if each is None or operand.op in (CONSTANT, DRAW):
                continue
            has_own = operand.shape.has_units and units.get(operand, HIDDEN) is not None
            if node.shape.has_units and (operand.shape is Shape.ROWS or (units and not has_own)):
                arrive_from_units(operand, each, node)
            elif operand.shape is Shape.NUMBER and node.shape is Shape.ROWS:
                arrive(operand, w.node(SHARE, each))
            else:
                arrive(operand, each)
    leaves = {node: gradient for node, gradient in arriving.items() if not node.inputs}
    return Derivative(
        graph,
        inputs={node: g for node, g in leaves.items() if node.op is INPUT},
        products=products,
        states={str(node.attribute): g for node, g in leaves.items() if node.op in (STATE, ROW)},
        parameters={node: g for node, g in leaves.items() if node.op in (VECTOR, SCALAR)},
        beside={node: g for node, g in leaves.items() if node.op is BESIDE},
    )


def _pullback(w: _Writer, graph: StepGraph, nodes: list[Node], products: dict[Node, Node]) -> Node:
    ordered = sorted(nodes, key=lambda node: graph.gates.index(str(node.attribute)))
    gates = " ".join(str(node.attribute) for node in ordered)
    return w.node(PULLBACK, *(products[node] for node in ordered), attribute=gates)
