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
from statistics import NormalDist
from typing import Any, Self

import numpy as np

__all__ = ["Calibration", "windows_for"]

SMALLEST_FACTOR, LARGEST_FACTOR = (
    0.2,
    50.0,
)  # of a band's width; beyond them no factor could mend the forecast
PRIOR_LOG_SCALE, PRIOR_COUNT = (
    0.1,
    1.0,
)  # bands are too narrow, before anything is known; and its weight, in errors
PRIOR_FREEDOM = 4.0  # of Student's t beside the errors: tails are never quite normal
USUAL_CORRELATION = 0.3  # of two errors of one window
FEWEST_WINDOWS, ALIKE_WINDOWS = (
    4,
    5,
)  # windows that can show how alike errors are, and that the usual counts as
TAIL_ERRORS = 6.0  # errors beyond the band that count as much as the assumption of normal ones
NORMAL = NormalDist()
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
        some = known.any(axis=1)
        forecasts, truth, known, windows = forecasts[some], truth[some], known[some], int(some.sum())
        if not windows:
            return cls.none(quantiles, "too short to hold anything out")
        factors = np.ones((1, len(quantiles)))
        for low in range(len(quantiles) // 2):
            level = quantiles[-1 - low] - quantiles[low]
            factors[:, [low, -1 - low]] = _factor(_ratios(forecasts, truth, low), known, level)
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


def _ratios(forecasts: np.ndarray, truth: np.ndarray, low: int) -> np.ndarray:
    """How many half-widths of the band from quantile `low` on the truth (W, H) lies away from the median."""
    middle = forecasts.shape[-1] // 2
    median = forecasts[..., middle]
    distance = np.abs(truth - median)
    half = np.abs(np.where(truth < median, forecasts[..., low], forecasts[..., -1 - low]) - median)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, np.minimum(distance / half, LARGEST_FACTOR))


def _factor(ratios: np.ndarray, known: np.ndarray, level: float) -> float:
    """The factor for the band of a level, from ratios (W, H): between what they are and what a normal error says.

    A quantile of ratios needs many of them in the tail; a scale needs few. So few errors are taken as normal ones whose
    scale is uncertain (Student's t), and the more there are beyond the band, the more they speak for themselves."""
    values = ratios[known]
    windows = len(ratios)
    alike = (
        1 + (known.sum(axis=1).mean() - 1) * USUAL_CORRELATION
    )  # errors of one window that say as much as one
    scale = _log_scale(values, len(values) / alike, level)
    found = _design_effect(ratios, known, level)
    effect = alike if found is None else (windows * found + ALIKE_WINDOWS * alike) / (windows + ALIKE_WINDOWS)
    count = len(values) / effect
    upper = (1 + level) / 2
    by_scale = scale + math.log(_student(upper, count + PRIOR_FREEDOM) / NORMAL.inv_cdf(upper))
    wanted = level * (1 + 1 / count)  # of `count` errors, so many lie below the next one on average
    if wanted >= 1:
        return _within(math.exp(by_scale))
    tail = count * (1 - level)
    weight = tail / (tail + TAIL_ERRORS)
    by_rank = math.log(max(float(np.quantile(values, wanted)), 1 / LARGEST_FACTOR))
    return _within(math.exp(weight * by_rank + (1 - weight) * by_scale))


def _log_scale(values: np.ndarray, count: float, level: float) -> float:
    """Logarithm of how many times too small the bands are, if errors are normal: from their mean size, which wild
    errors do not rule, and a prior that counts as `PRIOR_COUNT` errors."""
    mean = float(values.mean()) * NORMAL.inv_cdf((1 + level) / 2) * math.sqrt(math.pi / 2)
    return (count * math.log(max(mean, 1 / LARGEST_FACTOR)) + PRIOR_COUNT * PRIOR_LOG_SCALE) / (
        count + PRIOR_COUNT
    )


def _design_effect(ratios: np.ndarray, known: np.ndarray, level: float) -> float | None:
    """How many errors of one window say as much about a quantile as one that stands alone (Kish 1965).

    1 where errors of a window are independent, H where all of them miss the band together. None for few windows."""
    if len(ratios) < FEWEST_WINDOWS:
        return None
    beyond = np.where(known, (ratios > np.quantile(ratios[known], level)) - (1 - level), 0.0).sum(axis=1)
    size = float(known.sum(axis=1).mean())
    return float(np.clip((beyond**2).mean() / (size * level * (1 - level)), 1.0, size))


def _student(probability: float, freedom: float) -> float:
    """Quantile of Student's t (Cornish and Fisher's expansion, in Abramowitz and Stegun 1964, 26.7.5).

    >>> round(_student(0.975, 4.0), 2), round(_student(0.95, 10.0), 3)
    (2.78, 1.812)
    """
    z = NORMAL.inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def _within(factor: float) -> float:
    return min(max(factor, SMALLEST_FACTOR), LARGEST_FACTOR)


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
