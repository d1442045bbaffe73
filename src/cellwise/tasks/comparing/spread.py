"""Whether the means of a few seeds differ by more than seeds make them differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

__all__ = ["Sample", "is_difference_shown"]

# The 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom; between the last ones the smaller number holds.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
_T_MORE = ((120, 1.980), (60, 2.000), (30, 2.042), (20, 2.086))


class Sample:
    """The figures of one candidate, one a seed: their mean, and their standard deviation (None of a single one)."""

    def __init__(self, values: Sequence[float]) -> None:
        self.count = len(values)
        self.mean = fmean(values)
        self.spread = stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None


def is_difference_shown(one: Sample, other: Sample | float) -> bool | None:
    """Whether two means differ by more than chance would make them in 19 of 20 cases, by Welch's t-test (1947).

    other: a number, for what no seed changes. None: a single seed shows no spread, so nothing can be said."""
    samples = [one] if isinstance(other, float) else [one, other]
    difference = abs(one.mean - (other if isinstance(other, float) else other.mean))
    parts = [(each.spread**2 / each.count, each.count) for each in samples if each.spread is not None]
    if len(parts) < len(samples):
        return None
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return difference > 0
    freedom = variance**2 / sum(part**2 / (count - 1) for part, count in parts)
    return difference > t_quantile(int(freedom)) * math.sqrt(variance)


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, or of fewer degrees of freedom where the table has no such row.

    >>> t_quantile(1), t_quantile(4), t_quantile(45), t_quantile(10**6)
    (12.706, 2.776, 2.042, 1.98)
    """
    if freedom <= len(_T):
        return _T[max(freedom, 1) - 1]
    return next(value for least, value in _T_MORE if freedom >= least)
