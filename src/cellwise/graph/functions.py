"""The functions that equations are written with: `from cellwise import sigmoid, tanh, where`.

Each takes values of a step (or plain numbers beside them) and returns the value of the op of the same name.
"""

from __future__ import annotations

from typing import Any

from cellwise.graph.ops import OPS
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
