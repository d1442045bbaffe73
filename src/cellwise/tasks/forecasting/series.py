"""One series made ready for the network: which units it is learned in, and its gaps closed from the past.

Positive series are learned as logarithms, so that growth and seasons are shares of the level. All others
(zeros, negative values, or values that come so near to zero that a logarithm would blow them up) are
learned as they are, in units of their own mean step, which leaves them free of where zero lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Series", "prepare", "relative_step"]

# A positive series whose smallest value lies further below its mean than this is not multiplicative.
SMALLEST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Series:
    """A series from its first observation on.

    values: (T,) float64 in learned units, NaN where missing; filled: (T,) the same without gaps; start: how
    many leading missing values were dropped; logarithmic: whether learned units are logarithms; unit: what
    one learned unit is in units of y (1 for logarithms, 0 for a series of zeros); nonnegative: whether a
    forecast below zero makes no sense."""

    values: np.ndarray
    filled: np.ndarray
    start: int
    logarithmic: bool
    unit: float
    nonnegative: bool

    def restore(self, learned: np.ndarray) -> np.ndarray:
        """Learned units back to units of y."""
        if self.logarithmic:
            return np.exp(learned)
        restored = learned * self.unit
        return np.maximum(restored, 0.0) if self.nonnegative else restored

    def tail(self, steps: int) -> Series:
        """Only the last steps."""
        return replace(self, values=self.values[-steps:], filled=self.filled[-steps:])

    def extend(self, values: np.ndarray) -> Series:
        """With more values, in learned units, after the last."""
        return replace(self, values=np.append(self.values, values), filled=np.append(self.filled, values))


def prepare(y: np.ndarray, season_length: int, typical_step: float) -> Series:
    """A series y (T,), NaN where missing, with at least one observation.

    typical_step: mean relative step of the training data, the unit of a linear series that never moves.

    >>> prepare(np.array([np.nan, 1.0, np.nan, np.e]), 1, 0.1).filled.tolist()
    [0.0, 0.0, 1.0]
    """
    start = int(np.flatnonzero(~np.isnan(y))[0])
    y = y[start:]
    seen = y[~np.isnan(y)]
    smallest, size = float(seen.min()), float(np.abs(seen).mean())
    logarithmic = smallest > SMALLEST_SHARE * size
    if logarithmic:
        unit = 1.0
        values = np.log(y)
    else:
        step = float(np.abs(np.diff(seen)).mean()) if len(seen) > 1 else 0.0
        unit = step if step > 0 else size * typical_step
        values = y / unit if unit > 0 else y
    return Series(values, fill(values, season_length), start, logarithmic, unit, smallest >= 0)


def fill(values: np.ndarray, season_length: int) -> np.ndarray:
    """Close gaps (T,) using only what lies before them: the step that the series took a season ago, else no
    step.

    A gap so keeps the level before it and the shape of the last season, and does not drift however long it
    is."""
    filled = values.copy()
    for t in np.flatnonzero(np.isnan(values)):
        season_ago = t - season_length
        step = filled[season_ago] - filled[season_ago - 1] if season_ago >= 1 and season_length > 1 else 0.0
        filled[t] = filled[t - 1] + step
    return filled


def relative_step(y: np.ndarray) -> float:
    """Mean |y[t] - y[t-1]| over mean |y|: how much a series moves from one step to the next; NaN if that is
    unknown."""
    seen = y[~np.isnan(y)]
    size = float(np.abs(seen).mean()) if len(seen) > 1 else 0.0
    return float(np.abs(np.diff(seen)).mean()) / size if size > 0 else float("nan")
