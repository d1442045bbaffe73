"""Numbers made small enough to travel inside a page: quantised, compressed, written as text.

A browser reads them back with `DecompressionStream`; the other half of this file is `unpack` in templates/trace.js.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["LEVELS", "Fit", "Packed", "fitting", "pack_shares", "pack_signal", "roots"]

# How finely numbers are kept, as even steps above and below the middle: the finest that fits is taken.
LEVELS = (254, 62, 14)


@dataclass(frozen=True)
class Packed:
    """Whole numbers 0 ... levels in row-major order, as bytes that zlib compressed; `delta`: each is the difference
    to the one before it, modulo 256."""

    data: bytes
    levels: int
    delta: bool

    def to_json(self) -> dict[str, Any]:
        """For the page."""
        text = base64.b64encode(self.data).decode("ascii")
        return {"data": text, "levels": self.levels, "delta": self.delta}


def pack_signal(values: Tensor, low: float, high: float, levels: int) -> Packed:
    """Values (T, H) between low and high, unit after unit: neighbours in time are alike, and so compress."""
    share = ((values.float() - low) / (high - low)).nan_to_num(0.5).clamp(0, 1)
    codes = (share * levels).round().to(torch.uint8).T.contiguous()
    return Packed(_compress(codes.flatten().diff(prepend=codes.new_zeros(1))), levels, delta=True)


def roots(values: Tensor, largest: Tensor) -> Tensor:
    """Values (K, T, T), each row in units of its `largest` (K, T), as square roots, so that small ones keep digits."""
    share = (values.float() / largest.float().clamp(min=1e-30)[..., None]).nan_to_num(0.0).clamp(-1, 1)
    return share.abs().sqrt().copysign(share)


def pack_shares(shares: Tensor, signed: bool, levels: int) -> Packed:
    """What `roots` gave. Signed ones lie around levels / 2."""
    codes = levels // 2 + shares * (levels // 2) if signed else shares * levels
    return Packed(_compress(codes.round().to(torch.uint8).flatten()), levels, delta=False)


def _compress(codes: Tensor) -> bytes:
    return zlib.compress(codes.numpy().tobytes(), 6)


@dataclass(frozen=True)
class Fit:
    """What was packed, and how much of it the budget holds: 1 or more if all."""

    packed: list[Packed]
    room: float


def fitting(make: Callable[[int], Sequence[Packed]], budget: int) -> Fit:
    """What `make(levels)` gives for the finest levels whose bytes together stay within the budget, else for the
    coarsest."""
    for levels in LEVELS:
        packed = list(make(levels))
        size = sum(len(each.data) for each in packed)
        if size <= budget:
            break
    return Fit(packed, budget / size)
