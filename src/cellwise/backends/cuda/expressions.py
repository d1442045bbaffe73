"""Each op as an expression of CUDA C++: one table, op -> text; operands are {0}, {1}, ... ."""

from __future__ import annotations

from collections.abc import Sequence

from cellwise.backends.cuda.numbers import Number
from cellwise.graph import Node

# {how} is exact or fast; {seen} rounds as memory does: what is compared must come out the same in the backward pass,
# which knows the values that were kept.
LOWERINGS: dict[str, str] = {
    "add": "({0} + {1})",
    "sub": "({0} - {1})",
    "mul": "({0} * {1})",
    "div": "({0} / {1})",
    "neg": "(-{0})",
    "exp": "expf({0})",
    "log": "logf({0})",
    "sqrt": "sqrtf({0})",
    "sigmoid": "sigmoid_{how}({0})",
    "tanh": "tanh_{how}({0})",
    "relu": "relu({0})",
    "softplus": "softplus({0})",
    "sin": "sinf({0})",
    "cos": "cosf({0})",
    "erf": "erff({0})",
    "gelu": "gelu({0})",
    "silu": "silu_{how}({0})",
    "elu": "elu({0})",
    "hard_sigmoid": "hard_sigmoid({0})",
    "hard_tanh": "least(greatest({0}, -1.f), 1.f)",
    "pow": "powf({0}, {1})",
    "floor": "floorf({0})",
    "sign": "sign({0})",
    "abs": "fabsf({0})",
    "minimum": "least({0}, {1})",
    "maximum": "greatest({0}, {1})",
    "less": "({seen}({0}) < {seen}({1}))",
    "less_equal": "({seen}({0}) <= {seen}({1}))",
    "where": "({0} ? {1} : {2})",
    "clamp": "least(greatest({0}, {1}), {2})",
    "stop_gradient": "{0}",
}


def lowered(node: Node, operands: Sequence[str], number: Number) -> str:
    """The expression of a node from those of its operands."""
    how = "fast" if number.fast else "exact"
    seen = "SEEN" if number.bytes == 2 else ""  # float32 is kept as it is
    return LOWERINGS[node.op.name].format(*operands, how=how, seen=seen)


def literal(value: float) -> str:
    """A number as C++ writes it."""
    if value != value:
        return "AS_FLOAT(0x7fffffffu)"
    if value in (float("inf"), float("-inf")):
        return f"AS_FLOAT(0x{'7' if value > 0 else 'f'}f800000u)"
    text = repr(float(value))
    return f"({text}f)" if "e" in text or "." in text else f"({text}.0f)"
