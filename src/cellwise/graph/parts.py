"""What equations are often made of, written with the functions of `functions.py`: no ops of their own.

Whatever is derived from equations (kernels, derivatives, cost, pictures) so knows them already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any

from cellwise.errors import ShapeError
from cellwise.graph.functions import amax, exp, mean, sqrt, stop_gradient
from cellwise.graph.functions import sum as sum_of_units
from cellwise.graph.tracer import current_tracer


def layer_norm(v: Any, gain: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """The units of each row, shifted and scaled to mean 0 and variance 1 (Ba, Kiros and Hinton 2016).

    Args:
        v: a gate, state or expression; or several, `(x.i, x.f)`, whose units are normalized as one row. Then a tuple of
            as many values is returned.
        gain, bias: what each unit is then multiplied by, and what is added: a `Vector()`, or of several values a tuple
            with one for each.
        eps: added to the variance.

    >>> from cellwise import Cell, Vector, layer_norm, tanh
    >>> class Normalized(Cell):
    ...     '''An Elman network whose sum is normalized.'''
    ...     gates = ("n",)
    ...     gain, shift = Vector(1.0), Vector(0.0)
    ...
    ...     def step(self, x, h):
    ...         return tanh(layer_norm(x.n + h.n, self.gain, self.shift))
    >>> print(Normalized().equations)
    v1 = W_in x + b_in + W_hn h + b_hn
    v2 = v1 − mean(v1)
    h' = tanh(v2 · 1 / sqrt(mean(v2 ⊙ v2) + 1e-05) ⊙ gain + shift)
    """
    values = _several(v)
    middle = _mean_of(values)
    centred = [each - middle for each in values]
    scale = 1 / sqrt(_mean_of([each * each for each in centred]) + eps)
    return _learned(v, [each * scale for each in centred], gain, bias)


def rms_norm(v: Any, gain: Any = None, eps: float = 1e-5) -> Any:
    """The units of each row over the root of their mean square (Zhang and Sennrich 2019).

    Arguments are those of `layer_norm`.
    """
    values = _several(v)
    scale = 1 / sqrt(_mean_of([each * each for each in values]) + eps)
    return _learned(v, [each * scale for each in values], gain, None)


def softmax(v: Any) -> Any:
    """exp(v) over its sum over the units: positive, and together 1. The largest is taken off first, as it cancels."""
    # No gradient through what cancels.
    powers = exp(v - stop_gradient(amax(v)))
    return powers / sum_of_units(powers)


def _several(v: Any) -> list[Any]:
    values = list(v) if isinstance(v, tuple | list) else [v]
    if not values:
        _refuse("Nothing was given to be normalized.", "Give it a gate, x.n, or several: (x.i, x.f).")
    return values


def _mean_of(values: Sequence[Any]) -> Any:
    """The mean of all units of several values: that of their sum, over their number."""
    total = mean(reduce(add, values))
    return total * (1 / len(values)) if len(values) > 1 else total


def _learned(v: Any, values: list[Any], gain: Any, bias: Any) -> Any:
    """Multiplied by gains, with biases added; one value where one was given."""
    steps: tuple[tuple[str, Any, Callable[[Any, Any], Any]], ...] = (
        ("gain", gain, lambda value, factor: value * factor),
        ("bias", bias, lambda value, shift: value + shift),
    )
    for what, given, apply in steps:
        if given is not None:
            each = given if isinstance(given, tuple | list) else [given] * len(values)
            if len(each) != len(values):
                _refuse(
                    f"{len(values)} values are normalized together, and {what} has {len(each)}.",
                    f"Give {what} one for each value, in a tuple, or one for all.",
                )
            values = [apply(*pair) for pair in zip(values, each, strict=True)]
    return tuple(values) if isinstance(v, tuple | list) else values[0]


def _refuse(problem: str, remedy: str) -> None:
    tracer = current_tracer()
    if tracer is None:
        raise TypeError(f"{problem} {remedy}")
    tracer.fail(ShapeError, problem=problem, remedy=remedy)
