"""Bands that cover what they promise: widened, or narrowed, by what windows that training never saw say of them.

A network learns its bands on what it is trained on, where it errs less than it will. So the bands are compared with the
truth of held-out windows: how many times its half-width away from the median did the truth lie? The band of a level is
then made so many times as wide as that level of those ratios asks for (conformal prediction with scores in units of
the band itself: Romano, Patterson and Candès 2019; Sesia and Candès 2020). The median stays, and so does what the
network knows of which steps are harder than others.

Shapes: W windows, N forecasts, H steps of the horizon, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from cellwise.tasks.forecasting.band_factors import (
    LARGEST_FACTOR,
    MANY_SERIES,
    HeldOut,
    band_factors,
    distances,
    series_factors,
)

__all__ = ["Calibration", "windows_for"]

LONGEST_NOTE, LARGEST_NUMBER = 1000, 1e6  # of what a file may say
SPAN, SHORT_SPAN, SHORT_HORIZONS = 0.15, 0.3, 3  # shares of a history; horizons that a short one spares
MOST_WINDOWS, MOST_FORECASTS = 48, 6000  # of a series, and of all


@dataclass(frozen=True, eq=False)
class Calibration:
    """Factors for the distance of each quantile from the median.

    quantiles (Q,): sorted, the median in the middle; factors (H, Q): by step of the horizon, 1 at the median; series:
    a further factor for single series, by name; note: one sentence for a person, on what it is based."""

    quantiles: tuple[float, ...]
    factors: np.ndarray
    note: str
    series: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.quantiles)
        if list(self.quantiles) != sorted(set(self.quantiles)) or count % 2 == 0:
            raise ValueError("quantiles must be sorted and odd in number")
        if self.quantiles[count // 2] != 0.5 or self.quantiles[0] <= 0 or self.quantiles[-1] >= 1:
            raise ValueError("quantiles must lie between 0 and 1, with 0.5 in the middle")
        if self.factors.ndim != 2 or self.factors.shape[1] != count or not len(self.factors):
            raise ValueError(f"factors must have one row per step and {count} columns")
        numbers = [*self.factors.ravel().tolist(), *self.series.values()]
        if not all(0 < each <= LARGEST_FACTOR for each in numbers):
            raise ValueError(f"factors must be above 0 and at most {LARGEST_FACTOR:g}")
        if (self.factors[:, count // 2] != 1).any():
            raise ValueError("the median has the factor 1")

    @classmethod
    def none(cls, quantiles: Sequence[float], reason: str) -> Self:
        """The calibration that changes nothing, because of `reason`."""
        return cls(tuple(quantiles), np.ones((1, len(quantiles))), f"the bands are not calibrated: {reason}")

    @classmethod
    def fit(
        cls,
        forecasts: np.ndarray,
        truth: np.ndarray,
        quantiles: Sequence[float],
        *,
        series: Sequence[str] | None = None,
        cutoffs: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        nonnegative: np.ndarray | bool = False,
    ) -> Self:
        """Factors from forecasts (W, H, Q) of windows that no gradient has seen, and their truth (W, H), NaN where
        missing.

        series: the name of the series of each window; None for a single one. cutoffs (W,): observations of the series
        before each window, by which windows that overlap are known; None if none do. scale (W,): the error of a naive
        forecast of the same series (`naive_scale`), beside which narrow bands are doubted while windows are few; None
        where unknown. nonnegative (W,) or one for all: whether a value below zero makes no sense."""
        names = [""] * len(truth) if series is None else list(series)
        held = HeldOut.of(forecasts, truth, names, nonnegative=nonnegative, scale=scale, cutoffs=cutoffs)
        if not held.windows:
            return cls.none(quantiles, "too short to hold anything out")
        middle = len(quantiles) // 2
        own = series_factors(held, middle - 1) if middle else {}
        held = held.with_own(own)
        factors = np.ones((held.truth.shape[1], len(quantiles)))
        for low in range(middle):
            found = band_factors(held, low, quantiles[-1 - low] - quantiles[low])
            factors[:, [low, -1 - low]] = found[:, None]
        return cls(tuple(quantiles), factors, _note(held.windows, quantiles, factors), own)

    def apply(
        self,
        forecasts: np.ndarray,
        *,
        series: Sequence[str] | None = None,
        nonnegative: np.ndarray | bool = False,
    ) -> np.ndarray:
        """Calibrated quantiles for forecasts (N, H', Q), in the same shape and units: ordered, around the same median.

        H' may be longer than the H of `fit`: what lies beyond has its last factor. series: names of the N series;
        nonnegative (N,) or one for all: whether a value below zero makes no sense."""
        middle = len(self.quantiles) // 2
        steps = np.minimum(np.arange(forecasts.shape[1]), len(self.factors) - 1)
        own = [1.0] if series is None else [self.series.get(name, 1.0) for name in series]
        median = forecasts[..., middle : middle + 1]
        positive = np.broadcast_to(np.asarray(nonnegative, bool), len(forecasts))[:, None, None]
        in_ratio = positive & (forecasts < median) & (forecasts > 0)
        reach = distances(forecasts, median, in_ratio) * self.factors[steps] * np.array(own)[:, None, None]
        below, above = np.split(reach, [middle], axis=-1)
        with np.errstate(invalid="ignore"):
            lower = np.where(in_ratio[..., :middle], median * np.exp(-below), median - below)
        lower = np.maximum(lower, np.where(positive, np.minimum(median, 0.0), -np.inf))
        made = np.concatenate([lower, median + above], axis=-1)
        made[..., :middle] = np.minimum.accumulate(made[..., :middle][..., ::-1], axis=-1)[..., ::-1]
        made[..., middle:] = np.maximum.accumulate(made[..., middle:], axis=-1)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {
            "quantiles": list(self.quantiles),
            "factors": self.factors.tolist(),
            "series": dict(self.series),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, also after a trip through JSON. Nothing in it is trusted.

        Raises ValueError, KeyError or TypeError for what `to_dict` could not have written."""
        note, series = values["note"], values["series"]
        if not isinstance(note, str) or len(note) > LONGEST_NOTE or not note.isprintable():
            raise ValueError("the note on the calibration is not a sentence")
        rows = [_numbers(row) for row in values["factors"]]
        if len({len(row) for row in rows}) != 1:
            raise ValueError("the factors are no table")
        if not isinstance(series, dict) or not all(isinstance(name, str) for name in series):
            raise ValueError("factors of series need names")
        own = dict(zip(series, _numbers(list(series.values())), strict=True))
        return cls(tuple(_numbers(values["quantiles"])), np.array(rows), note, own)


def windows_for(lengths: np.ndarray, horizon: int) -> tuple[int, int]:
    """How many held-out windows a calibration needs, and how many steps lie between two: (count, step).

    What counts is how long a time they span, for errors come in seasons and in times that are harder than others; so
    they lie in the last `SPAN` of the history, overlapping by half where that is short. lengths (N,): observations of
    each series that training and held-out windows share."""
    length = int(np.median(lengths))
    spared = SHORT_HORIZONS if len(lengths) < MANY_SERIES else 1
    room = max(int(SPAN * length), min(spared * horizon, int(SHORT_SPAN * length)))
    most = max(1, min(MOST_WINDOWS, MOST_FORECASTS // len(lengths)))
    step = max(1, horizon // 2)
    count = 1 + max(0, room - horizon) // step
    if count > most:
        count, step = most, max(step, (room - horizon) // max(1, most - 1))
    return count, step


def _note(windows: int, quantiles: Sequence[float], factors: np.ndarray) -> str:
    widest = float(factors[:, -1].mean())
    level = round(100 * (quantiles[-1] - quantiles[0]))
    many = "1 window that was" if windows == 1 else f"{windows:,} windows that were"
    return (
        f"the bands are calibrated on {many} held out from training; "
        f"that of {level} % is {widest:.2f} times as wide as it came"
    )


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list | tuple):
        raise TypeError("a list of numbers is something else")
    if not all(
        isinstance(each, int | float) and not isinstance(each, bool) and abs(each) <= LARGEST_NUMBER
        for each in values
    ):
        raise ValueError("a list of numbers holds something else")
    return [float(each) for each in values]
