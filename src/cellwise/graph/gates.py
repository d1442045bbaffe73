"""What a gate may be beside W v + b, as functions of a gate.

`ready(x.n)` are numbers of the input as they arrive; `skew`, `low_rank` and `block_diagonal` say how W is made; the W
of `cumsum` is a triangle of ones, that of `fixed` is given.
"""

from __future__ import annotations

import math
from typing import Any

from cellwise.errors import ShapeError
from cellwise.graph.expr import Node, ready_part
from cellwise.graph.forms import (
    BLOCKS,
    CUMSUM,
    FIXED,
    LOW_RANK,
    MOST,
    MOST_GIVEN,
    SKEW,
    SYMMETRIC_SKEW,
    Form,
    text_of_rows,
)
from cellwise.graph.ops import BESIDE, DRAW, INPUT, OPS, PROJECT, Shape
from cellwise.graph.text import short
from cellwise.graph.tracer import Tracer, current_tracer, describe
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
    tracer = _tracer("cumsum", v, "torch.cumsum")
    node = _multiplied(tracer, "cumsum", v, "which has no units to sum up", "cumsum(softmax(h.n))")
    return Value(tracer, tracer.fixed(node, Form(CUMSUM, 1), CUMSUM))


def fixed(matrix: Any, v: Any, name: str = "M") -> Any:
    """The product of a given matrix with the units of v, of which nothing is learned: `fixed([[0.9, 0.1], [0, 1]], m)`.

    Its columns are as many as v has units, which therefore is a number that `widths` says, and no H; its rows are the
    units of the product. The numbers stand in the equations, and go where these go: into run folders and exported
    programs.

    Args:
        matrix: rows of numbers, at most 65,536; or an array or a tensor of two dimensions.
        name: what it is called in equations; the next free of M, M2, M3, ... if that is taken.
    """
    tracer = _tracer("fixed", v, "@")
    node = _multiplied(tracer, "fixed", v, "which has no units to be multiplied", "fixed(matrix, h)")
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        tracer.fail(
            ShapeError,
            problem=f"fixed was given the name {name!r:.60}.",
            remedy='It is a plain Python name without a leading _: name="A".',
        )
    form = Form(FIXED, text_of_rows(_rows(tracer, matrix)))
    return Value(tracer, tracer.fixed(node, form, name))


def _tracer(name: str, v: Any, instead: str) -> Tracer:
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(
            f"cellwise.{name} writes equations inside a Cell.step and was given {describe(v)} outside of one; to "
            f"compute with tensors use {instead}."
        )
    return tracer


def _multiplied(tracer: Tracer, name: str, v: Any, why: str, example: str) -> Node:
    """What a function that is a product takes."""
    node = node_of(v)
    if not isinstance(node, Node) or node.shape is not Shape.BATCH or node.is_mask:
        what = f"{short(node)}, of shape {node.shape}" if isinstance(node, Node) else describe(v)
        tracer.fail(
            ShapeError,
            problem=f"{name} was given {what}, {why}.",
            remedy=f"It takes a value that differs from row to row and from unit to unit: {example}.",
        )
    if node.op in (BESIDE, DRAW):  # whose rows no product reads
        node = tracer.apply(OPS["mul"], node, 1.0)
    return node


def _rows(tracer: Tracer, matrix: Any) -> list[list[float]]:
    """The numbers of a matrix, by rows."""
    try:
        rows = [[float(each) for each in row] for row in matrix]
    except (TypeError, ValueError):
        rows = []
    sizes = {len(row) for row in rows}
    problem = None
    if not sizes - {0}:
        problem = f"{describe(matrix)}, which is no matrix of numbers"
    elif len(sizes) > 1:
        problem = f"rows of {min(sizes)} and of {max(sizes)} numbers"
    elif not all(math.isfinite(each) for row in rows for each in row):
        problem = "a matrix with a number that is not finite"
    elif len(rows) * len(rows[0]) > MOST_GIVEN:
        problem = f"a matrix of {len(rows)} × {len(rows[0])} numbers, and takes {MOST_GIVEN:,} at most"
    if problem is not None:
        tracer.fail(
            ShapeError,
            problem=f"fixed was given {problem}.",
            remedy="Its matrix is rows of equally many numbers, [[1, 0.5], [0, 2]], or an array of two dimensions.",
        )
    return rows


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
