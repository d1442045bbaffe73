"""The arithmetic of times: medians, quartiles, ratios of neighbouring runs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Spread:
    """A median between its quartiles."""

    low: float
    median: float
    high: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """The median and quartiles of some numbers, interpolated between those that there are.

    >>> spread([3.0, 1.0, 2.0, 5.0, 4.0])
    Spread(low=2.0, median=3.0, high=4.0)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def speedups(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, ...]:
    """How many times longer the other side took in each pair of neighbouring runs; above 1 ours is faster.

    >>> speedups([1.0, 2.0], [3.0, 4.0])
    (3.0, 2.0)
    """
    return tuple(other / own for own, other in zip(ours, theirs, strict=True))


def verdict(ratio: Spread) -> str:
    """In words. Where the middle half of the ratios lies on both sides of 1, none is called the faster.

    >>> verdict(Spread(1.1, 1.2, 1.3)), verdict(Spread(0.5, 0.6, 0.7)), verdict(Spread(0.9, 1.01, 1.1))
    ('faster', 'slower', 'equal')
    """
    if ratio.low > 1:
        return "faster"
    return "slower" if ratio.high < 1 else "equal"
