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

from cellwise.tasks.forecasting.metrics import mean

__all__ = ["Calibration", "windows_for"]

# Of a band's width; beyond them no factor could mend the forecast.
SMALLEST_FACTOR, LARGEST_FACTOR = 0.2, 50.0
# Before any window has spoken, bands are too narrow by so much (a logarithm), as far as their deviation is about so
# many times the naive error (a logarithm too), and more the narrower they are; all that counts as so many errors.
USUAL_LOG_SCALE, USUAL_SPREAD, DOUBT, MOST_DOUBT, PRIOR_COUNT = 0.1, -0.35, 0.5, 2.0, 3.0
PRIOR_FREEDOM = 4.0  # of Student's t beside the errors: tails are never quite normal
WILD = 5.0  # deviations
USUAL_CORRELATION = 0.3  # of two errors of one window
FEWEST_WINDOWS, USUAL_WINDOWS = (
    4,
    5,
)  # windows that can show how alike errors are, and that the usual counts as
TAIL_ERRORS = 4.0  # errors beyond the band that count as much as the assumption of normal ones
LONGEST_NOTE = 1000
SPAN, SHORT_SPAN, SHORT_HORIZONS = (
    0.15,
    0.3,
    3,
)  # shares of a history, and how many horizons a short one spares
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
    ) -> Self:
        """Factors from forecasts (W, H, Q) of windows that no gradient has seen, and their truth (W, H), NaN where
        missing.

        series: the name of the series of each window; None for a single one. cutoffs (W,): observations of the series
        before each window, by which windows that overlap are known; None if none do. scale (W,): the error of a naive
        forecast of the same series (`naive_scale`), which few windows are weighed against; None where unknown."""
        held = _Held.of(forecasts, truth, series, cutoffs, scale)
        if not held.windows:
            return cls.none(quantiles, "too short to hold anything out")
        factors = np.ones((1, len(quantiles)))
        for low in range(len(quantiles) // 2):
            factors[:, [low, -1 - low]] = _factor(held, low, quantiles[-1 - low] - quantiles[low])
        return cls(tuple(quantiles), factors, _note(held.windows, quantiles, factors))

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

    What counts is how long a time they span, for errors come in seasons and in times that are harder than others; so
    they lie in the last `SPAN` of the history, overlapping by half where that is short. lengths (N,): observations of
    each series that training and held-out windows share."""
    length = int(np.median(lengths))
    room = max(int(SPAN * length), min(SHORT_HORIZONS * horizon, int(SHORT_SPAN * length)))
    most = max(1, min(MOST_WINDOWS, MOST_FORECASTS // len(lengths)))
    step = max(1, horizon // 2)
    count = 1 + max(0, room - horizon) // step
    if count > most:
        count, step = most, max(step, (room - horizon) // max(1, most - 1))
    return count, step


@dataclass(frozen=True, eq=False)
class _Held:
    """The windows of which something is known. shared: how often each target occurs, on average, among the windows."""

    forecasts: np.ndarray
    truth: np.ndarray
    known: np.ndarray
    scale: np.ndarray
    shared: float

    @classmethod
    def of(
        cls,
        forecasts: np.ndarray,
        truth: np.ndarray,
        series: Sequence[str] | None,
        cutoffs: np.ndarray | None,
        scale: np.ndarray | None,
    ) -> Self:
        forecasts, truth = np.asarray(forecasts, np.float64), np.asarray(truth, np.float64)
        known = ~np.isnan(truth) & np.isfinite(forecasts).all(axis=2)
        some = known.any(axis=1)
        names = (
            np.zeros(len(truth), np.int64)
            if series is None
            else np.unique(list(series), return_inverse=True)[1]
        )
        unit = np.full(len(truth), np.nan) if scale is None else np.asarray(scale, np.float64)
        known = known[some]
        shared = 1.0
        if cutoffs is not None and some.any():
            targets = (np.asarray(cutoffs)[some, None] + np.arange(truth.shape[1]))[known]
            owners = np.broadcast_to(names[some, None], known.shape)[known]
            shared = len(targets) / len(np.unique(np.stack([owners, targets]), axis=1).T)
        return cls(forecasts[some], truth[some], known, unit[some], shared)

    @property
    def windows(self) -> int:
        return len(self.truth)

    @property
    def size(self) -> float:
        """Known values of a window, on average."""
        return float(self.known.sum(axis=1).mean())

    def ratios(self, low: int) -> np.ndarray:
        """How many half-widths of the band from quantile `low` on the truth (W, H) lies away from the median."""
        median = self.forecasts[..., self.forecasts.shape[-1] // 2]
        distance = np.abs(self.truth - median)
        side = np.where(self.truth < median, self.forecasts[..., low], self.forecasts[..., -1 - low])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(distance == 0, 0.0, np.minimum(distance / np.abs(side - median), LARGEST_FACTOR))

    def spread(self, low: int, level: float) -> float:
        """Logarithm of the standard deviation that a band says, if normal, in units of the scale; NaN if unknown."""
        width = self.forecasts[..., -1 - low] - self.forecasts[..., low]
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.log(width / (2 * _normal(level) * self.scale[:, None]))
        return float(mean(np.where(np.isfinite(logarithm), logarithm, np.nan)))


def _factor(held: _Held, low: int, level: float) -> float:
    """The factor for the band of a level: between what the ratios are and what they would be of normal errors.

    A quantile needs many errors in the tail; a scale needs few. So few errors are taken as normal ones whose scale is
    uncertain (Student's t), and the more there are beyond the band, the more they speak for themselves."""
    ratios = held.ratios(low)
    values = ratios[held.known]
    alike = 1 + (held.size - 1) * USUAL_CORRELATION  # errors of one window that say as much as one
    prior = _prior(held.spread(low, level))
    scale = _log_scale(values, len(values) / (alike * held.shared), level, prior)
    found = _design_effect(ratios, held, level)
    effect = (
        alike
        if found is None
        else (held.windows * found + USUAL_WINDOWS * alike) / (held.windows + USUAL_WINDOWS)
    )
    count = len(values) / (effect * held.shared)
    by_scale = scale + math.log(_student((1 + level) / 2, count + PRIOR_FREEDOM) / _normal(level))
    wanted = level * (1 + 1 / count)  # of `count` errors, so many lie below the next one on average
    if wanted >= 1:
        return _within(math.exp(by_scale))
    tail = count * (1 - level)
    weight = tail / (tail + TAIL_ERRORS)
    by_rank = math.log(max(float(np.quantile(values, wanted)), SMALLEST_FACTOR))
    return _within(math.exp(weight * by_rank + (1 - weight) * by_scale))


def _prior(spread: float) -> float:
    """Logarithm of how many times too narrow bands are, before any window has spoken.

    The narrower the bands are beside the errors of a naive forecast, the less they are to be believed."""
    if math.isnan(spread):
        return USUAL_LOG_SCALE
    return min(max(USUAL_LOG_SCALE - DOUBT * (spread - USUAL_SPREAD), 0.0), MOST_DOUBT)


def _log_scale(values: np.ndarray, count: float, level: float, prior: float) -> float:
    """Logarithm of how many times too narrow the bands are, if errors are normal: from their mean size, to which wild
    ones add no more than `WILD` deviations each, and a prior that counts as `PRIOR_COUNT` errors."""
    deviations = np.minimum(values * _normal(level), WILD * math.exp(prior))
    size = max(float(deviations.mean()) * math.sqrt(math.pi / 2), SMALLEST_FACTOR)
    return (count * math.log(size) + PRIOR_COUNT * prior) / (count + PRIOR_COUNT)


def _design_effect(ratios: np.ndarray, held: _Held, level: float) -> float | None:
    """How many errors of a window say as much about a quantile as one that stands alone (Kish 1965).

    1 where errors of a window are independent, H where all of them miss the band together. None for few windows."""
    if held.windows < FEWEST_WINDOWS:
        return None
    outside = ratios > np.quantile(ratios[held.known], level)
    excess = np.where(held.known, outside - (1 - level), 0.0).sum(axis=1)
    return float(np.clip((excess**2).mean() / (held.size * level * (1 - level)), 1.0, held.size))


def _normal(level: float) -> float:
    """Half the width of a central band of a standard normal distribution."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _student(probability: float, freedom: float) -> float:
    """Quantile of Student's t (Cornish and Fisher's expansion, in Abramowitz and Stegun 1964, 26.7.5).

    >>> round(_student(0.975, 4.0), 2), round(_student(0.95, 10.0), 3)
    (2.78, 1.812)
    """
    z = NormalDist().inv_cdf(probability)
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
