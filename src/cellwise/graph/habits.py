"""Habits of numpy and torch that a step does not know, each with the way out: what an error says in their place."""

from __future__ import annotations

import difflib

from cellwise.graph.ops import POINTWISE, REDUCTIONS

# Ops that are written with Python's own signs; every other op has a function of its name.
SIGNS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "neg": "-",
    "pow": "**",
    "abs": "abs()",
    "less": "<",
    "less_equal": "<=",
}
FUNCTIONS = tuple(name for name in (*POINTWISE, *REDUCTIONS) if name not in SIGNS)
# Functions that are written with these.
PARTS = ("layer_norm", "rms_norm", "softmax")
# Those of graph/randomness.py.
RANDOM = ("dropout", "uniform", "zoneout")

# name in torch, numpy or math -> how a step writes it
_WRITTEN = {
    **{name: f"cellwise.{name}" for name in (*FUNCTIONS, *PARTS)},
    **SIGNS,
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "true_divide": "/",
    "negative": "-",
    "absolute": "abs()",
    "fabs": "abs()",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "greater": ">",
    "greater_equal": ">=",
    "square": "v ** 2",
    "power": "**",
    "float_power": "**",
    "reciprocal": "1 / v",
    "rsqrt": "1 / cellwise.sqrt(v)",
    "log1p": "cellwise.log(1 + v)",
    "expm1": "cellwise.exp(v) - 1",
    "logsigmoid": "-cellwise.softplus(-v)",
    "expit": "cellwise.sigmoid",
    "swish": "cellwise.silu",
    "hardsigmoid": "cellwise.hard_sigmoid",
    "sgn": "cellwise.sign",
    "erfc": "1 - cellwise.erf(v)",
    "ceil": "-cellwise.floor(-v)",
    "trunc": "cellwise.sign(v) * cellwise.floor(abs(v))",
    "frac": "v - cellwise.sign(v) * cellwise.floor(abs(v))",
    "fmod": "a - b * cellwise.sign(a / b) * cellwise.floor(abs(a / b))",
    "remainder": "a - b * cellwise.floor(a / b)",
    "mod": "a - b * cellwise.floor(a / b)",
    "floor_divide": "cellwise.floor(a / b)",
    "leaky_relu": "cellwise.maximum(v, 0.01 * v)",
    "hardtanh": "cellwise.hard_tanh",
    "relu6": "cellwise.clamp(v, 0, 6)",
    "clip": "cellwise.clamp(v, low, high)",
    "clamp_min": "cellwise.maximum(v, low)",
    "clamp_max": "cellwise.minimum(v, high)",
    "fmax": "cellwise.maximum",
    "fmin": "cellwise.minimum",
    "detach": "cellwise.stop_gradient(v)",
    "masked_fill": "cellwise.where(a < b, value, v)",
    "lerp": "a + weight * (b - a)",
    "max": "cellwise.amax",
    "amin": "-cellwise.amax(-v)",
    "min": "-cellwise.amax(-v)",
    "average": "cellwise.mean",
    "norm": "cellwise.sqrt(cellwise.sum(v * v))",
    "normalize": "v / cellwise.sqrt(cellwise.sum(v * v))",
    "var": "cellwise.mean((v - cellwise.mean(v)) ** 2)",
    "std": "cellwise.sqrt(cellwise.mean((v - cellwise.mean(v)) ** 2))",
    "dot": "cellwise.sum(a * b)",
    "inner": "cellwise.sum(a * b)",
    "logsumexp": "cellwise.log(cellwise.sum(cellwise.exp(v)))",
    "log_softmax": "cellwise.log(cellwise.softmax(v))",
    "dropout": "cellwise.dropout(v, p)",
    "rand": "cellwise.uniform()",
    "rand_like": "cellwise.uniform()",
}
# What takes all units of a row together, or rows together, and is not written with `sum`, `mean` and `amax`.
_REDUCTIONS = frozenset("""
    aminmax prod median mode argmax argmin any all cumsum cumprod nansum nanmean softmin sort sorted argsort topk
    outer matmul mm bmm linear einsum tensordot batch_norm group_norm instance_norm
""".split())  # fmt: skip  # noqa: SIM905
# What changes or asks for the form of a tensor.
_FORM = frozenset("""
    shape size ndim dim numel dtype device view reshape flatten squeeze unsqueeze transpose permute t T mT H expand tile
    repeat broadcast_to chunk split cat stack concat concatenate roll flip gather index_select narrow unbind ravel
    swapaxes clone copy contiguous to type cpu cuda is_cuda float double half bfloat16 int long bool item numpy tolist
    astype requires_grad requires_grad_ grad backward data
""".split())  # fmt: skip  # noqa: SIM905


def way_out(name: str) -> tuple[str, str] | None:
    """What is wrong with asking a value of a step for a torch or numpy function of this name, and what to do;
    None if the name says nothing.

    >>> way_out("exp")
    ("'exp' is no method of a value in a step", 'Use cellwise.exp.')
    >>> way_out("median")[1]
    'All units of a row go together only as cellwise.sum, mean and amax, or by the weights of a gate.'
    """
    plain = name.removesuffix("_") or name
    if plain in _WRITTEN:
        return f"'{name}' is no method of a value in a step", f"Use {_WRITTEN[plain]}."
    if plain in _REDUCTIONS:
        return (
            f"'{name}' takes many units or rows together, and a step knows no such function",
            "All units of a row go together only as cellwise.sum, mean and amax, or by the weights of a gate.",
        )
    if plain in _FORM:
        return (
            f"'{name}' belongs to tensors, and inside step a value has no numbers or form yet: it stands for (B, H)",
            "Write the equation alone; rows, units, dtype and device are the layer's business.",
        )
    return None


def takes_units(name: str) -> bool:
    """Whether a function of this name takes many units of a row together."""
    return name in _REDUCTIONS


def instead_of(name: str) -> str | None:
    """How a step writes a function of torch, numpy or math.

    >>> instead_of("tanh"), instead_of("add"), instead_of("fft")
    ('cellwise.tanh', '+', None)
    """
    return _WRITTEN.get(name)


def nearest_function(name: str) -> str | None:
    """The function of cellwise that a mistyped name means."""
    return next(iter(difflib.get_close_matches(name, (*FUNCTIONS, *RANDOM), n=1, cutoff=0.75)), None)
