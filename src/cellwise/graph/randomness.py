"""Randomness in equations: `from cellwise import dropout, uniform, zoneout`.

Each is written with numbers that the layer draws with torch's generator before its kernels run, one for each row and
unit: at each step, or once a sequence. To the equations they are given, as values beside x are.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

from cellwise.errors import ConcreteValueError
from cellwise.graph.ops import CONSTANT
from cellwise.graph.tracer import Tracer, current_tracer, describe
from cellwise.graph.values import Value


def uniform(per_sequence: bool = False) -> Any:
    """A random number between 0 and 1 for each row and unit, in training; in evaluation, which draws nothing, 0.5.

    Drawn at each step, or with `per_sequence` once for all steps of a sequence. Where evaluation is not to compute with
    the mean, a cell asks `self.training`, a Python bool inside `step`:

        keeps = where(uniform() < p, 0, 1) if self.training else 1 - p

    A layer draws numbers of float32 and holds them in its own dtype until the backward pass: T * B * H of them, or
    B * H.
    """
    tracer = _tracer("uniform")
    tracer.asked_training = True
    if not tracer.training:
        return Value(tracer, tracer.node(CONSTANT, attribute=0.5))
    return Value(tracer, tracer.draw("u", None, per_sequence))


def dropout(v: Any, p: float, per_sequence: bool = False) -> Any:
    """v in evaluation; in training, for each row and unit, 0 with probability p, else v / (1 - p).

    Srivastava et al. 2014.

    Args:
        v: a value of a step: a state, a gate, an expression.
        p: between 0 and 1, a number or an option of the cell.
        per_sequence: one mask for all steps of a sequence (Gal & Ghahramani 2016), and not a new one at each step.

    A layer holds its masks until the backward pass, as numbers of its dtype: T * B * H a mask, or B * H of one per
    sequence.
    """
    tracer, p = _tracer("dropout"), _probability("dropout", p)
    tracer.asked_training |= p > 0
    if p == 0 or not tracer.training:
        return v
    if p == 1:
        return 0.0 * v
    mask = Value(tracer, tracer.draw("m", 1 - p, per_sequence))
    return 1 / (1 - p) * (mask * v)


def zoneout(new: Any, old: Any, p: float) -> Any:
    """The new value of a state, or with probability p its old one, for each row and unit, at each step (Krueger et al.
    2017). In evaluation what is to be expected of it, p * old + (1 - p) * new.

    Holds a mask as `dropout` does.
    """
    tracer, p = _tracer("zoneout"), _probability("zoneout", p)
    tracer.asked_training |= 0 < p < 1
    if p in (0, 1):
        return old if p else new
    keeps: Any = Value(tracer, tracer.draw("z", p, False)) if tracer.training else p
    return keeps * old + (1 - keeps) * new


def _tracer(name: str) -> Tracer:
    tracer = current_tracer()
    if tracer is None:
        instead = {"uniform": "torch.rand", "dropout": "torch.nn.functional.dropout"}.get(name, "torch.where")
        raise TypeError(
            f"cellwise.{name} writes equations inside a Cell.step and was called outside of one; to compute with "
            f"tensors use {instead}."
        )
    return tracer


def _probability(name: str, p: Any) -> float:
    if isinstance(p, bool) or not isinstance(p, Real) or not 0 <= float(p) <= 1:
        tracer = _tracer(name)
        found = p if isinstance(p, Real) else describe(p)
        tracer.fail(
            ConcreteValueError,
            problem=f"The probability of {name} is a number between 0 and 1; got {found}.",
            remedy=f"Write a number or an option of the cell: {name}(..., self.p), with p: float = 0.1 in the class.",
        )
    return float(p)
