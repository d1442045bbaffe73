"""What a gate may be beside W v + b, as functions of a gate.

`ready(x.n)` are numbers of the input as they arrive; `skew`, `low_rank` and `block_diagonal` say how W is made; the W
of `cumsum` is a triangle of ones.
"""

from __future__ import annotations

import math
from typing import Any

from cellwise.errors import ShapeError
from cellwise.graph.expr import Node, ready_part
from cellwise.graph.forms import BLOCKS, CUMSUM, LOW_RANK, MOST, SKEW, SYMMETRIC_SKEW, Form
from cellwise.graph.ops import BESIDE, DRAW, INPUT, OPS, PROJECT, Shape
from cellwise.graph.text import short
from cellwise.graph.tracer import current_tracer, describe
from cellwise.graph.values import Value, node_of, part_of_input


def ready(gate: Any) -> Any:
    """A gate of the input that arrives ready: `ready(x.n)` are numbers of the input itself, without a weight.

    The input of such a layer has H numbers for each of its gates, in their order; what makes them (a projection, a
    convolution, a batch norm) stands before the layer. All gates of the input are ready then, or none.
    """
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(
            f"cellwise.ready writes equations inside a Cell.step and was given {describe(gate)} outside of one."
        )
    node = node_of(gate)
    if not isinstance(node, Node) or node.op is not INPUT:
        tracer.fail(
            ShapeError,
            problem=f"ready was given {short(node) if isinstance(node, Node) else describe(gate)}, which is no gate of "
            "the input.",
            remedy="It takes the numbers of a gate from the input as they are: ready(x.n).",
        )
    return Value(tracer, part_of_input(tracer, ready_part(str(node.attribute))))


def skew(gate: Any, diagonal: float = 0.0) -> Any:
    """A gate whose weight is A - A^T - diagonal I, for a learned matrix A: `skew(h.n)` (Chang et al. 2019).

    The eigenvalues of A - A^T are imaginary, so that such a product turns a state and neither shrinks nor enlarges it.
    """
    return _formed("skew", gate, SKEW, _number("skew", "diagonal", diagonal))


def symmetric_skew(gate: Any, beta: float) -> Any:
    """A gate whose weight is (1 - beta) (A + A^T) + beta (A - A^T), for a learned matrix A (Erichson et al. 2021).

    It leans from a symmetric matrix, where beta is 0, to a skew one, where it is 1.
    """
    return _formed("symmetric_skew", gate, SYMMETRIC_SKEW, _number("symmetric_skew", "beta", beta))


def low_rank(gate: Any, rank: int) -> Any:
    """A gate whose weight is the product of two narrow ones, `low_rank(h.n, 4)`: L (H, rank), R (rank, H) or (rank, D).

    It has rank (H + H) numbers for H H. The kernels multiply by the product, which is made once in a call.
    """
    return _formed("low_rank", gate, LOW_RANK, _count("low_rank", "rank", rank))


def block_diagonal(gate: Any, heads: int) -> Any:
    """A gate whose weight has blocks on its diagonal and zeros elsewhere: units of one head see no other's.

    `block_diagonal(h.n, 4)` has 4 blocks (H / 4, H / 4), as the heads of sLSTM (Beck et al. 2024). With one head it is
    the gate as it is. Where all products with states are of heads, these run apart (`cellwise.graph.heads`).
    """
    count = _count("block_diagonal", "heads", heads)
    return gate if count == 1 and isinstance(gate, Value) else _formed("block_diagonal", gate, BLOCKS, count)


def cumsum(v: Any) -> Any:
    """The sums of the units up to each: unit k is v_1 + ... + v_k, `cumsum(softmax(x.f + h.f))` (Shen et al. 2019).

    Kernels make it as a product with a triangle of ones, which takes as long as a gate of a state. From the last unit
    on it is `sum(v) - cumsum(v) + v`.
    """
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(
            f"cellwise.cumsum writes equations inside a Cell.step and was given {describe(v)} outside of one; to "
            "compute with tensors use torch.cumsum."
        )
    node = node_of(v)
    if not isinstance(node, Node) or node.shape is not Shape.BATCH or node.is_mask:
        what = f"{short(node)}, of shape {node.shape}" if isinstance(node, Node) else describe(v)
        tracer.fail(
            ShapeError,
            problem=f"cumsum was given {what}, which has no units to sum up.",
            remedy="It takes a value that differs from row to row and from unit to unit: cumsum(softmax(h.n)).",
        )
    if node.op in (BESIDE, DRAW):  # whose rows no product reads
        node = tracer.apply(OPS["mul"], node, 1.0)
    return Value(tracer, tracer.fixed(node, Form(CUMSUM, 1)))


def _formed(name: str, gate: Any, kind: str, number: float) -> Any:
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(
            f"cellwise.{name} writes equations inside a Cell.step and was given {describe(gate)} outside of one."
        )
    node = node_of(gate)
    if not isinstance(node, Node) or node.op not in (INPUT, PROJECT):
        tracer.fail(
            ShapeError,
            problem=f"{name} was given {short(node) if isinstance(node, Node) else describe(gate)}, which is no gate.",
            remedy=f"It says how the weight of a gate is made: {name}(h.n, ...), {name}((r * h).n, ...).",
        )
    if node.form is not None:
        tracer.fail(
            ShapeError,
            problem=f"{name} was given a gate whose weight is made of others already, by {node.form.kind}.",
            remedy="Take one of the two.",
        )
    form = Form(kind, number)
    made = tracer.node(node.op, *node.inputs, attribute=node.attribute, linear=node.linear, form=form)
    return Value(tracer, made)


def _number(name: str, what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        _refuse(name, what, value, "a number, fixed when the layer is made: an option of the cell, for one")
    return float(value)


def _count(name: str, what: str, value: Any) -> int:
    if type(value) is not int or not 0 < value <= MOST:
        _refuse(name, what, value, f"a whole number from 1 to {MOST:,}")
    found: int = value
    return found


def _refuse(name: str, what: str, value: Any, wanted: str) -> None:
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(f"{what} of cellwise.{name} is {wanted}; got {describe(value)}.")
    shown = repr(value) if isinstance(value, int | float | str) else describe(value)
    tracer.fail(ShapeError, problem=f"{what} of {name} is {shown}.", remedy=f"It is {wanted}.")
