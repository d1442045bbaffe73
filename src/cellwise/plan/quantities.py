"""What a cost is made of: operations, numbers that are moved, numbers that are held; formulas that add up."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Any

from cellwise.plan.polynomial import Polynomial, b, t

ZERO = Polynomial()
ROWS = b * t  # steps of all sequences


class _Sum:
    """Adds field by field."""

    def __add__(self: Any, other: Any) -> Any:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return type(self)(*(own + other for own, other in pairs))


@dataclass(frozen=True)
class Operations(_Sum):
    """`functions` and `recomputed` are parts of `pointwise`."""

    products: Polynomial = ZERO
    pointwise: Polynomial = ZERO
    functions: Polynomial = ZERO
    recomputed: Polynomial = ZERO

    @property
    def total(self) -> Polynomial:
        return self.products + self.pointwise


@dataclass(frozen=True)
class Traffic(_Sum):
    """Numbers read and written; times the bytes of a number they are bytes."""

    read: Polynomial = ZERO
    written: Polynomial = ZERO

    @property
    def total(self) -> Polynomial:
        return self.read + self.written


@dataclass(frozen=True)
class Memory:
    """Numbers that are held at once, by what they are.

    `in_vectors` are the parts that kernels hold in whole vectors; `copies` those that they hold besides, where rows of
    h numbers are no whole vectors.
    """

    parts: tuple[tuple[str, Polynomial], ...]
    in_vectors: frozenset[str] = frozenset()
    copies: tuple[tuple[str, Polynomial], ...] = ()

    def at(self, lanes: int = 1, **sizes: int) -> int:
        """The numbers held at these sizes, each by its letter, by kernels whose vectors have so many lanes."""
        return sum(self.part(name, lanes, **sizes) for name, _ in (*self.parts, *self.copies))

    def part(self, name: str, lanes: int = 1, **sizes: int) -> int:
        """Those of one part, or of one of the copies, which are none where nothing is padded."""
        padded = sizes | {"h": -(-sizes["h"] // lanes) * lanes}
        copy = dict(self.copies).get(name)
        if copy is not None:
            return 0 if padded == sizes else copy.at(**padded)
        return self[name].at(**(padded if name in self.in_vectors else sizes))

    @property
    def total(self) -> Polynomial:
        return reduce(add, (size for _, size in self.parts), ZERO)

    def __getitem__(self, name: str) -> Polynomial:
        return dict(self.parts)[name]
