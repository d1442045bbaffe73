"""The one table of ops: name, number of operands, how it is written, and its meaning on torch tensors.

An op is added here, in one line; its derivative and its lowerings live in tables of the same shape beside their users.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# How tightly an op binds when it is written down.
COMPARE, SUM, PRODUCT, SIGN, ATOM = range(5)


@dataclass(frozen=True, eq=False)
class Op:
    """One kind of node. `text` is how it is written, `meaning` what it is in torch; a leaf has none."""

    name: str
    operands: int
    text: str
    binds: int = ATOM
    meaning: str | Callable[..., Tensor] | None = None
    commutes: bool = False
    makes_mask: bool = False

    @cached_property
    def torch(self) -> Callable[..., Tensor] | None:
        """The meaning on tensors; None for a leaf."""
        if not isinstance(self.meaning, str):
            return self.meaning
        # Imported here, since equations are read, printed and counted without torch, which takes seconds to load.
        import torch

        found: Callable[..., Tensor] = operator.attrgetter(self.meaning)(torch)
        return found

    def __repr__(self) -> str:
        return self.name


def _leaf(name: str, text: str, operands: int = 0, binds: int = ATOM) -> Op:
    return Op(name, operands, text, binds)


# What a step starts from. The text of a leaf takes its attribute.
INPUT = _leaf("input", "W_i{a} x + b_i{a}", binds=SUM)
STATE = _leaf("state", "{a}")
VECTOR = _leaf("vector", "{a}")
SCALAR = _leaf("scalar", "{a}")
CONSTANT = _leaf("constant", "{a}")
# The affine map of a gate: its recurrent rows times a value, plus its recurrent bias.
PROJECT = _leaf("project", "W_h{a} {0} + b_h{a}", operands=1, binds=SUM)


def _detach(value: Tensor) -> Tensor:
    return value.detach()


def _clamp(value: Tensor, low: Tensor, high: Tensor) -> Tensor:
    import torch

    # torch.clamp computes with operands of several shapes, but its derivative fails on some of them (torch 2.13).
    return torch.clamp(*torch.broadcast_tensors(value, low, high))


_ELEMENTARY = (
    Op("add", 2, "{0} + {1}", SUM, "add", commutes=True),
    Op("sub", 2, "{0} - {1}", SUM, "sub"),
    Op("mul", 2, "{0} * {1}", PRODUCT, "mul", commutes=True),
    Op("div", 2, "{0} / {1}", PRODUCT, "div"),
    Op("neg", 1, "-{0}", SIGN, "neg"),
    Op("exp", 1, "exp({0})", meaning="exp"),
    Op("log", 1, "log({0})", meaning="log"),
    Op("sqrt", 1, "sqrt({0})", meaning="sqrt"),
    Op("sigmoid", 1, "sigmoid({0})", meaning="sigmoid"),
    Op("tanh", 1, "tanh({0})", meaning="tanh"),
    Op("relu", 1, "relu({0})", meaning="relu"),
    Op("softplus", 1, "softplus({0})", meaning="nn.functional.softplus"),
    Op("sin", 1, "sin({0})", meaning="sin"),
    Op("cos", 1, "cos({0})", meaning="cos"),
    Op("abs", 1, "|{0}|", meaning="abs"),
    Op("minimum", 2, "min({0}, {1})", meaning="minimum", commutes=True),
    Op("maximum", 2, "max({0}, {1})", meaning="maximum", commutes=True),
    Op("less", 2, "{0} < {1}", COMPARE, "lt", makes_mask=True),
    Op("less_equal", 2, "{0} <= {1}", COMPARE, "le", makes_mask=True),
    Op("where", 3, "({1} if {0} else {2})", meaning="where"),
    Op("clamp", 3, "clamp({0}, {1}, {2})", meaning=_clamp),
    Op("stop_gradient", 1, "stop_gradient({0})", meaning=_detach),
)

LEAVES: dict[str, Op] = {op.name: op for op in (INPUT, STATE, VECTOR, SCALAR, CONSTANT)}
OPS: dict[str, Op] = {op.name: op for op in (*LEAVES.values(), PROJECT, *_ELEMENTARY)}


def constant_tensor(value: Any, like: Tensor) -> Tensor:
    """A number of a graph as a tensor of shape () with the dtype and device of `like`."""
    import torch

    return torch.full((), value, dtype=like.dtype, device=like.device)
