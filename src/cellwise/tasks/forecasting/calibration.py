"""Bands that cover what they promise: widened, or narrowed, by what windows that training never saw say of them.

A network learns its bands on what it is trained on, where it errs less than it will. So the bands are compared with the
truth of held-out windows: how many times its half-width away from the median did the truth lie? The band of a level is
then made so many times as wide as that level of those ratios asks for (conformal prediction with scores in units of
the band itself: Romano, Patterson and Candès 2019; Sesia and Candès 2020). The median stays, and so does what the
network knows of which steps are harder than others.

Shapes: W windows, N forecasts, H steps of the horizon, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

__all__ = ["Calibration", "windows_for"]

LARGEST_FACTOR = 50.0  # of a band's width; what asks for more is no forecast that a factor could mend
LONGEST_NOTE = 1000


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
    ) -> Self:
        """Factors from forecasts (W, H, Q) of windows that no gradient has seen, and their truth (W, H), NaN where
        missing; oldest window first. series: the name of the series of each window; None for a single series."""
        forecasts, truth = np.asarray(forecasts, np.float64), np.asarray(truth, np.float64)
        known = ~np.isnan(truth) & np.isfinite(forecasts).all(axis=2)
        windows = int(known.any(axis=1).sum())
        if not windows:
            return cls.none(quantiles, "too short to hold anything out")
        middle = len(quantiles) // 2
        factors = np.ones((1, len(quantiles)))
        for low in range(middle):
            high = len(quantiles) - 1 - low
            ratios = _ratios(forecasts[..., [low, middle, high]], truth)
            level = quantiles[high] - quantiles[low]
            factors[:, [low, high]] = _factor(ratios, known, level)
        return cls(tuple(quantiles), factors, _note(windows, quantiles, factors))

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
        median = forecasts[..., middle : middle + 1]
        own = np.array([self.series.get(name, 1.0) for name in series]) if series is not None else np.ones(1)
        reach = np.abs(forecasts - median) * self.factors[steps] * own[:, None, None]
        below = np.maximum.accumulate(reach[..., :middle][..., ::-1], axis=-1)[..., ::-1]
        above = np.maximum.accumulate(reach[..., middle + 1 :], axis=-1)
        made = np.concatenate([median - below, median, median + above], axis=-1)
        floor = np.where(np.broadcast_to(nonnegative, len(made)), 0.0, -np.inf)[:, None, None]
        return np.maximum(made, np.minimum(floor, median))

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

    lengths (N,): observations of each series that training and held-out windows share."""
    room = int(0.2 * int(np.max(lengths)))  # steps that may be held out
    step = max(1, horizon // 2)
    return max(1, min(24, 1 + (room - horizon) // step)), step


def _ratios(band: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many half-widths away from the median the truth (W, H) lies, for low, median, high (W, H, 3)."""
    low, median, high = np.moveaxis(band, -1, 0)
    distance = np.abs(truth - median)
    half = np.where(truth < median, median - low, high - median)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / half)


def _factor(ratios: np.ndarray, known: np.ndarray, level: float) -> float:
    """The factor for a band: that level of the ratios (W, H), and a little more where few windows speak."""
    values = np.sort(ratios[known])
    windows = int(known.any(axis=1).sum())
    count = len(values) / _design_effect(ratios, known, level)
    wanted = min(level * (1 + 1 / count), 1.0)
    found = float(np.quantile(values, wanted))
    # A Student-like reserve: the fewer windows, the less is known of the size of errors.
    reserve = 1 + 0.5 / windows
    return float(np.clip(found * reserve, 0.2, LARGEST_FACTOR))


def _design_effect(ratios: np.ndarray, known: np.ndarray, level: float) -> float:
    """How many errors of one window say as much as one of another: 1 where they are independent."""
    outside = np.where(known, ratios > np.quantile(ratios[known], level), np.nan)
    counts = known.sum(axis=1)
    if len(counts) < 3:
        return float(counts.mean())
    with np.errstate(invalid="ignore"):
        spread = float(np.nanvar(np.nansum(outside, axis=1) - (1 - level) * counts))
    independent = float(counts.mean()) * level * (1 - level)
    return float(np.clip(spread / independent, 1.0, counts.mean())) if independent > 0 else 1.0


def _note(windows: int, quantiles: Sequence[float], factors: np.ndarray) -> str:
    widest = float(factors[:, -1].mean())
    level = round(100 * (quantiles[-1] - quantiles[0]))
    many = "1 window that was" if windows == 1 else f"{windows:,} windows that were"
    return (
        f"the bands are calibrated on {many} held out from training; "
        f"that of {level} % is {widest:.2f} times as wide as the network's own"
    )


def _numbers(values: Any) -> list[float]:
    if not isinstance(values, list | tuple):
        raise TypeError("a list of numbers is something else")
    if not all(
        isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
        for each in values
    ):
        raise ValueError("a list of numbers holds something else")
    return [float(each) for each in values]
