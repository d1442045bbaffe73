"""The one table of ops: what each takes, how it is written, what it means in torch, and what others need to know of it.

An op computes unit by unit; a reduction takes all units of a row together.

To add an op, write its row here. `tests/graph/test_ops.py` then fails until it has also

    graph/functions.py          a function that equations call, unless it is written with a sign (graph/habits.py)
    passes/differentiate.py     its derivative                    RULES
    backends/cpu/vectors.py     its vector instructions           LOWERINGS
    backends/cuda/expressions.py    its expression in CUDA C++    LOWERINGS
    understand/latex.py         how LaTeX writes it               WRITTEN
    testing/strategies.py       how a random cell applies it      APPLY
    tests/graph/test_ops.py     its closed form, as a second opinion on its meaning

A reduction stands in `backends/cpu/reductions.py` instead, and in no table of CUDA C++.
"""

from __future__ import annotations

import enum
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# How tightly an op binds when it is written down.
COMPARE, SUM, PRODUCT, SIGN, POWER, ATOM = range(6)


class Shape(enum.IntEnum):
    """The shape of a value inside a step: whether it differs from unit to unit, and whether from row to row."""

    NUMBER = 0  # ()
    UNITS = 1  # (H,)
    ROWS = 2  # (B, 1), one number per row of the batch
    BATCH = 3  # (B, H)

    def __str__(self) -> str:
        return ("()", "(H,)", "(B, 1)", "(B, H)")[self]

    @property
    def has_units(self) -> bool:
        return bool(self & Shape.UNITS)

    @property
    def has_rows(self) -> bool:
        return bool(self & Shape.ROWS)

    def with_(self, other: Shape) -> Shape:
        """That of what is computed from values of both shapes."""
        return Shape(self | other)


class Kind(enum.Enum):
    """What an op costs, and so whether a backward pass has its value kept or computes it again."""

    LEAF = "given to the step"
    MATMUL = "a matrix product"
    REDUCTION = "one number of all units of a row: kept"
    SIMPLE = "an instruction or two for each number: computed again rather than kept"
    SLOW = "one instruction of many cycles: kept"
    FUNCTION = "an elementary function, tens of instructions: kept"


Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Op:
    """One kind of node.

    Args:
        text: how it is written; operands are {0}, {1}, ..., what the node carries is {a}.
        meaning: what it is in torch, the name of a function or one; None for leaves and matrix products.
        commutes: whether the order of its operands is of no importance.
        takes_mask: whether its first operand is a comparison, as that of `where` alone.
        makes_mask: whether it is a comparison.
        amplifies: whether it makes a large difference of a tiny one: log(0) is infinite, sqrt(1e-40) is 1e-20.
        range: the numbers between which its values lie, whatever its operands; None if they can be any.
        free: whether its value is its operand under another name.
        may_gate: whether its values open and close what they multiply: they are positive, or held between bounds.
        activation: whether a gate may end with it, as one thing with the sum that it is taken of.
        shape: that of its values, where it is not that of its operands together.
    """

    name: str
    kind: Kind
    operands: int
    text: str
    binds: int = ATOM
    meaning: str | Callable[..., Tensor] | None = None
    commutes: bool = False
    takes_mask: bool = False
    makes_mask: bool = False
    amplifies: bool = False
    range: Range | None = None
    free: bool = False
    may_gate: bool = False
    activation: bool = False
    shape: Shape | None = None

    @cached_property
    def torch(self) -> Callable[..., Tensor] | None:
        """The meaning on tensors; None for a leaf or a matrix product."""
        if not isinstance(self.meaning, str):
            return self.meaning
        # Imported here, since equations are read, printed and counted without torch, which takes seconds to load.
        import torch

        found: Callable[..., Tensor] = operator.attrgetter(self.meaning)(torch)
        return found

    def __repr__(self) -> str:
        return self.name


def _leaf(name: str, text: str, shape: Shape, binds: int = ATOM) -> Op:
    return Op(name, Kind.LEAF, 0, text, binds, shape=shape)


# What a step starts from. The text of a leaf takes its attribute.
INPUT = _leaf("input", "W_i{a} x + b_i{a}", Shape.BATCH, binds=SUM)
STATE = _leaf("state", "{a}", Shape.BATCH)
VECTOR = _leaf("vector", "{a}", Shape.UNITS)
SCALAR = _leaf("scalar", "{a}", Shape.NUMBER)
CONSTANT = _leaf("constant", "{a}", Shape.NUMBER)
BESIDE = _leaf("beside", "{a}", Shape.BATCH)  # a value that the layer is given beside x, at each step
DRAW = _leaf("draw", "{a}", Shape.BATCH)  # a random number for each row and unit, drawn by the layer
# The affine map of a gate: its recurrent rows times a value, plus its recurrent bias.
PROJECT = Op("project", Kind.MATMUL, 1, "W_h{a} {0} + b_h{a}", SUM, shape=Shape.BATCH)


def _detach(value: Tensor) -> Tensor:
    return value.detach()


def _held(value: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    import torch

    # A value at a bound is let through, and so is its gradient: torch.clamp does so up to 2.13 and no longer in 2.14.
    # Its derivative fails on operands of some shapes, too.
    risen = torch.where(value < low, low, value)
    return torch.where(risen > high, high, risen)


def _clamp(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return _held(value, low, high)


def _hard_sigmoid(value: Tensor) -> Tensor:
    # torch's own computes with a sixth of float32, also in float64 (torch 2.13).
    return _held(value + 3, 0.0, 6.0) / 6


# Their derivative is zero wherever there is one, so nothing is to be differentiated before them.
def _floor(value: Tensor) -> Tensor:
    return value.detach().floor()


def _sign(value: Tensor) -> Tensor:
    return value.detach().sign()


def _function(name: str, meaning: str = "", **facts: Any) -> Op:
    """An elementary function of one operand, as it is called in torch."""
    return Op(name, Kind.FUNCTION, 1, f"{name}({{0}})", ATOM, meaning or name, **facts)


SIMPLE, SLOW = Kind.SIMPLE, Kind.SLOW
_POSITIVE, _ONE_TO_ONE = (0.0, math.inf), (-1.0, 1.0)

POINTWISE: dict[str, Op] = {
    op.name: op
    for op in (
        Op("add", SIMPLE, 2, "{0} + {1}", SUM, "add", commutes=True),
        Op("sub", SIMPLE, 2, "{0} - {1}", SUM, "sub"),
        Op("mul", SIMPLE, 2, "{0} * {1}", PRODUCT, "mul", commutes=True),
        Op("div", SLOW, 2, "{0} / {1}", PRODUCT, "div", amplifies=True),
        Op("neg", SIMPLE, 1, "-{0}", SIGN, "neg"),
        _function("exp", range=_POSITIVE, may_gate=True, activation=True),
        _function("log", amplifies=True),
        _function("sqrt", amplifies=True, range=_POSITIVE),
        _function("sigmoid", range=(0.0, 1.0), may_gate=True, activation=True),
        _function("tanh", range=_ONE_TO_ONE, activation=True),
        Op("relu", SIMPLE, 1, "relu({0})", ATOM, "relu", range=_POSITIVE, activation=True),
        _function("softplus", "nn.functional.softplus", range=_POSITIVE, may_gate=True, activation=True),
        _function("sin", range=_ONE_TO_ONE, activation=True),
        _function("cos", range=_ONE_TO_ONE, activation=True),
        _function("erf", range=_ONE_TO_ONE, activation=True),
        _function("gelu", "nn.functional.gelu", range=(-0.17, math.inf), activation=True),
        _function("silu", "nn.functional.silu", range=(-0.2785, math.inf), activation=True),
        _function("elu", "nn.functional.elu", range=(-1.0, math.inf), activation=True),
        Op("hard_sigmoid", SIMPLE, 1, "hard_sigmoid({0})", ATOM, _hard_sigmoid, range=(0.0, 1.0),
           may_gate=True, activation=True),
        Op("hard_tanh", SIMPLE, 1, "hard_tanh({0})", ATOM, "nn.functional.hardtanh", range=_ONE_TO_ONE,
           activation=True),
        Op("pow", Kind.FUNCTION, 2, "{0}^{1}", POWER, "pow", amplifies=True),
        Op("abs", SIMPLE, 1, "|{0}|", ATOM, "abs", range=_POSITIVE),
        Op("floor", SIMPLE, 1, "floor({0})", ATOM, _floor, amplifies=True),
        Op("sign", SIMPLE, 1, "sign({0})", ATOM, _sign, amplifies=True, range=_ONE_TO_ONE),
        Op("minimum", SIMPLE, 2, "min({0}, {1})", ATOM, "minimum", commutes=True),
        Op("maximum", SIMPLE, 2, "max({0}, {1})", ATOM, "maximum", commutes=True),
        Op("less", SIMPLE, 2, "{0} < {1}", COMPARE, "lt", makes_mask=True),
        Op("less_equal", SIMPLE, 2, "{0} <= {1}", COMPARE, "le", makes_mask=True),
        Op("where", SIMPLE, 3, "({1} if {0} else {2})", ATOM, "where", takes_mask=True),
        Op("clamp", SIMPLE, 3, "clamp({0}, {1}, {2})", ATOM, _clamp, may_gate=True),
        Op("stop_gradient", SIMPLE, 1, "stop_gradient({0})", ATOM, _detach, free=True),
    )
}  # fmt: skip  # a row is a line


def _reduction(name: str) -> Op:
    """What all units of a row give together, one number per row, as it is called in torch."""

    def meaning(value: Tensor) -> Tensor:
        import torch

        found: Tensor = getattr(torch, name)(value, -1, keepdim=True)
        return found

    return Op(name, Kind.REDUCTION, 1, f"{name}({{0}})", ATOM, meaning, shape=Shape.ROWS)


REDUCTIONS: dict[str, Op] = {name: _reduction(name) for name in ("sum", "mean", "amax")}

LEAVES: dict[str, Op] = {op.name: op for op in (INPUT, STATE, VECTOR, SCALAR, CONSTANT, BESIDE, DRAW)}
OPS: dict[str, Op] = LEAVES | {PROJECT.name: PROJECT} | POINTWISE | REDUCTIONS


def constant_tensor(value: Any, like: Tensor) -> Tensor:
    """A number of a graph as a tensor of shape () with the dtype and device of `like`."""
    import torch

    return torch.full((), value, dtype=like.dtype, device=like.device)
