"""What torch's FlopCounterMode counts for the kernels' operators: their matrix products, as for operators of torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.compiled.cell_kernels import kernels_of


def register(module: Any) -> None:
    """Tell torch.utils.flop_counter of the operators."""
    packets = torch.ops.cellwise
    module.register_flop_formula(packets.direction, get_raw=True)(_forward)
    module.register_flop_formula(packets.direction_backward, get_raw=True)(_backward)


def _products(key: str, x: Tensor, weights: list[Tensor], bias: bool) -> Iterator[tuple[str, int]]:
    """The matrices that every valid step is multiplied by, and the operations that takes."""
    for stem, weight in zip(kernels_of(key, x.dtype, x.device.type).stems[bias], weights, strict=True):
        if stem.startswith("weight_"):
            yield stem, 2 * x.shape[0] * weight.numel()


def _forward(
    key: str,
    x: Tensor,
    offsets: Any,
    states: Any,
    resets: Any,
    weights: list[Tensor],
    bias: bool,
    *_: Any,
    **__: Any,
) -> int:
    return sum(count for _, count in _products(key, x, weights, bias))


def _backward(
    key: str,
    x: Tensor,
    offsets: Any,
    states: Any,
    resets: Any,
    weights: list[Tensor],
    bias: bool,
    *rest: Any,
    **_: Any,
) -> int:
    # At the weight, and at its operand.
    return sum(
        count * (2 if stem != "weight_ih" or rest[-1] else 1)
        for stem, count in _products(key, x, weights, bias)
    )
