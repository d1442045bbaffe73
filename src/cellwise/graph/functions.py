"""The functions that equations are written with: `from cellwise import sigmoid, tanh, where`.

Each takes values of a step (or plain numbers beside them) and returns the value of the op of the same name.
"""

from __future__ import annotations

from typing import Any

from cellwise.errors import ShapeError
from cellwise.graph.expr import Node
from cellwise.graph.ops import INPUT, OPS, PROJECT
from cellwise.graph.text import short
from cellwise.graph.tracer import current_tracer, describe
from cellwise.graph.values import Value, node_of


def _apply(name: str, *operands: Any) -> Any:
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(
            f"cellwise.{name} writes equations inside a Cell.step and was given {describe(operands[0])} "
            f"outside of one; to compute with tensors use torch.{name}."
        )
    return Value(tracer, tracer.apply(OPS[name], *(node_of(each) for each in operands)))


def linear(gate: Any) -> Any:
    """A gate without its bias: `linear(x.n)` is W_in x, `linear(h.n)` is W_hn h.

    The layer then has no such bias: `bias_ih` and `bias_hh` hold the rows of the other gates.
    """
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(
            f"cellwise.linear writes equations inside a Cell.step and was given {describe(gate)} outside of one; "
            "a linear map of tensors is torch.nn.functional.linear."
        )
    node = node_of(gate)
    if not isinstance(node, Node) or node.op not in (INPUT, PROJECT):
        tracer.fail(
            ShapeError,
            problem=f"linear was given {short(node) if isinstance(node, Node) else describe(gate)}, which is no gate.",
            remedy="It leaves out the bias of a gate: linear(x.n), linear(h.n), linear((r * h).n).",
        )
    return Value(
        tracer, tracer.node(node.op, *node.inputs, attribute=node.attribute, linear=True, form=node.form)
    )


def exp(v: Any) -> Any:
    """e to the power of v."""
    return _apply("exp", v)


def log(v: Any) -> Any:
    """The natural logarithm of v."""
    return _apply("log", v)


def sqrt(v: Any) -> Any:
    """The square root of v."""
    return _apply("sqrt", v)


def sigmoid(v: Any) -> Any:
    """The logistic function, 1 / (1 + exp(-v))."""
    return _apply("sigmoid", v)


def tanh(v: Any) -> Any:
    """The hyperbolic tangent of v."""
    return _apply("tanh", v)


def relu(v: Any) -> Any:
    """v where it is positive, else 0."""
    return _apply("relu", v)


def softplus(v: Any) -> Any:
    """log(1 + exp(v))."""
    return _apply("softplus", v)


def sin(v: Any) -> Any:
    """The sine of v, in radians."""
    return _apply("sin", v)


def cos(v: Any) -> Any:
    """The cosine of v, in radians."""
    return _apply("cos", v)


def erf(v: Any) -> Any:
    """The error function of v."""
    return _apply("erf", v)


def gelu(v: Any) -> Any:
    """v times the normal distribution function of v, v (1 + erf(v / sqrt(2))) / 2 (Hendrycks and Gimpel 2016)."""
    return _apply("gelu", v)


def silu(v: Any) -> Any:
    """v sigmoid(v) (Elfwing et al. 2018)."""
    return _apply("silu", v)


def elu(v: Any) -> Any:
    """v where it is positive, else exp(v) - 1 (Clevert et al. 2016)."""
    return _apply("elu", v)


def hard_sigmoid(v: Any) -> Any:
    """v / 6 + 1/2, held between 0 and 1: torch's; that of early Keras is clamp(0.2 * v + 0.5, 0, 1)."""
    return _apply("hard_sigmoid", v)


def hard_tanh(v: Any) -> Any:
    """v, held between -1 and 1."""
    return _apply("hard_tanh", v)


def floor(v: Any) -> Any:
    """The largest whole number that is no larger than v. Its gradient is zero."""
    return _apply("floor", v)


def sign(v: Any) -> Any:
    """1 where v is positive, -1 where it is negative, else 0. Its gradient is zero."""
    return _apply("sign", v)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two values, element by element."""
    return _apply("minimum", a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two values, element by element."""
    return _apply("maximum", a, b)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the comparison holds, else b: `where(x.n > 0, a, b)`."""
    return _apply("where", condition, a, b)


def clamp(v: Any, low: Any, high: Any) -> Any:
    """v, held between two bounds."""
    return _apply("clamp", v, low, high)


def sum(v: Any) -> Any:
    """The sum of all units of a row: one number per row, which meets every unit of what it is combined with."""
    return _apply("sum", v)


def mean(v: Any) -> Any:
    """The mean of all units of a row: one number per row."""
    return _apply("mean", v)


def amax(v: Any) -> Any:
    """The largest of all units of a row: one number per row. Equal ones share its gradient, as in torch.amax."""
    return _apply("amax", v)


def stop_gradient(v: Any) -> Any:
    """v itself, through which no gradient flows."""
    return _apply("stop_gradient", v)
