"""The one table of ops: name, number of operands, how it is written, and its meaning on torch tensors.

An op is added here, in one line; its derivative and its lowerings live in tables of the same shape beside their users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# How tightly an op binds when it is written down.
COMPARE, SUM, PRODUCT, SIGN, ATOM = range(5)


@dataclass(frozen=True, eq=False)
class Op:
    """One kind of node. `text` is how it is written, `torch` what it means; a leaf has no `torch`."""

    name: str
    operands: int
    text: str
    binds: int = ATOM
    torch: Callable[..., Tensor] | None = None
    commutes: bool = False
    makes_mask: bool = False

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
    # torch.clamp computes with operands of several shapes, but its derivative fails on some of them (torch 2.13).
    return torch.clamp(*torch.broadcast_tensors(value, low, high))


_ELEMENTARY = (
    Op("add", 2, "{0} + {1}", SUM, torch.add, commutes=True),
    Op("sub", 2, "{0} - {1}", SUM, torch.sub),
    Op("mul", 2, "{0} * {1}", PRODUCT, torch.mul, commutes=True),
    Op("div", 2, "{0} / {1}", PRODUCT, torch.div),
    Op("neg", 1, "-{0}", SIGN, torch.neg),
    Op("exp", 1, "exp({0})", torch=torch.exp),
    Op("log", 1, "log({0})", torch=torch.log),
    Op("sqrt", 1, "sqrt({0})", torch=torch.sqrt),
    Op("sigmoid", 1, "sigmoid({0})", torch=torch.sigmoid),
    Op("tanh", 1, "tanh({0})", torch=torch.tanh),
    Op("relu", 1, "relu({0})", torch=torch.relu),
    Op("softplus", 1, "softplus({0})", torch=F.softplus),
    Op("sin", 1, "sin({0})", torch=torch.sin),
    Op("cos", 1, "cos({0})", torch=torch.cos),
    Op("abs", 1, "|{0}|", torch=torch.abs),
    Op("minimum", 2, "min({0}, {1})", torch=torch.minimum, commutes=True),
    Op("maximum", 2, "max({0}, {1})", torch=torch.maximum, commutes=True),
    Op("less", 2, "{0} < {1}", COMPARE, torch.lt, makes_mask=True),
    Op("less_equal", 2, "{0} <= {1}", COMPARE, torch.le, makes_mask=True),
    Op("where", 3, "({1} if {0} else {2})", torch=torch.where),
    Op("clamp", 3, "clamp({0}, {1}, {2})", torch=_clamp),
    Op("stop_gradient", 1, "stop_gradient({0})", torch=_detach),
)

LEAVES: dict[str, Op] = {op.name: op for op in (INPUT, STATE, VECTOR, SCALAR, CONSTANT)}
OPS: dict[str, Op] = {op.name: op for op in (*LEAVES.values(), PROJECT, *_ELEMENTARY)}


def constant_tensor(value: Any, like: Tensor) -> Tensor:
    """A number of a graph as a tensor of shape () with the dtype and device of `like`."""
    return torch.full((), value, dtype=like.dtype, device=like.device)
