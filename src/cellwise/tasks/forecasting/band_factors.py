"""How many times as wide bands have to be, from held-out windows: the statistics behind `calibration`.

A ratio says how many times its half-width away from the median the truth lay. With few windows, a level of the ratios
is guessed from their mean size, as if errors were normal and their scale uncertain, beside a prior; with many it is
read off them. Errors of one window are alike, and windows may overlap, so what counts is how many independent errors
there would be.

Shapes: W windows, H steps of the horizon, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Self

import numpy as np

from cellwise.tasks.forecasting.metrics import mean

__all__ = ["LARGEST_FACTOR", "MANY_SERIES", "HeldOut", "band_factors", "distances", "series_factors"]

MANY_SERIES = 30  # from so many on, a window or two of each are enough to see through the noise
TIMES_PRIOR = 2.0  # windows of each of many series that count as much as the bands of the network
# Of a band's width; beyond them no factor could mend the forecast.
SMALLEST_FACTOR, LARGEST_FACTOR = 0.2, 50.0
# Before any window has spoken, bands are too narrow by so much (a logarithm), as far as their deviation is about so
# many times the naive error (a logarithm too), and more the narrower they are; all that counts as so many errors.
USUAL_LOG_SCALE, USUAL_SPREAD, DOUBT, MOST_DOUBT, PRIOR_COUNT = 0.4, -0.35, 0.5, 2.0, 2.5
PRIOR_FREEDOM = 3.0  # of Student's t beside the errors: tails are never quite normal
WILD = 5.0  # deviations
# Of two errors of one window; how many windows can show it; and how many windows the usual one counts as.
USUAL_CORRELATION, FEWEST_WINDOWS, USUAL_WINDOWS = 0.3, 4, 5
TAIL_ERRORS = 4.0  # errors beyond the band that count as much as the assumption of normal ones
# Errors that count as much as the assumption that all steps, or all series, are alike; and the furthest from it.
STEPS_PRIOR, STEEPEST = 60.0, 0.4
SERIES_PRIOR, FURTHEST = 60.0, 1.0
FEWEST_OF_SERIES = 20.0  # errors; fewer tell nothing of a series


@dataclass(frozen=True, eq=False)
class HeldOut:
    """W windows of which something is known.

    forecasts (W, H, Q); truth (W, H); known (W, H); names (W,): of the series; positive (W,): whether a value below
    zero makes no sense; scale (W,): error of a naive forecast, NaN where unknown; own (W,): factor of the series;
    shared: in how many of the windows a target lies, on average."""

    forecasts: np.ndarray
    truth: np.ndarray
    known: np.ndarray
    names: np.ndarray
    positive: np.ndarray
    scale: np.ndarray
    own: np.ndarray
    shared: float

    @classmethod
    def of(
        cls,
        forecasts: np.ndarray,
        truth: np.ndarray,
        names: Sequence[str],
        *,
        nonnegative: np.ndarray | bool = False,
        scale: np.ndarray | None = None,
        cutoffs: np.ndarray | None = None,
    ) -> Self:
        """As `Calibration.fit` gets them, without the windows of which nothing is known."""
        forecasts, truth = np.asarray(forecasts, np.float64), np.asarray(truth, np.float64)
        known = ~np.isnan(truth) & np.isfinite(forecasts).all(axis=2)
        some = known.any(axis=1)
        unit = np.full(len(truth), np.nan) if scale is None else np.asarray(scale, np.float64)
        positive = np.broadcast_to(np.asarray(nonnegative, bool), len(truth))
        owners = np.asarray(names, dtype=str)
        shared = 1.0
        if cutoffs is not None and some.any():
            targets = np.asarray(cutoffs)[:, None] + np.arange(truth.shape[1])
            _, numbers = np.unique(owners, return_inverse=True)
            pairs = np.stack([np.broadcast_to(numbers[:, None], known.shape)[known], targets[known]], axis=1)
            shared = len(pairs) / len(np.unique(pairs, axis=0))
        own = np.ones(int(some.sum()))
        return cls(
            forecasts[some], truth[some], known[some], owners[some], positive[some], unit[some], own, shared
        )

    def with_own(self, factors: Mapping[str, float]) -> Self:
        """With the factors of series."""
        return replace(self, own=np.array([factors.get(str(name), 1.0) for name in self.names]))

    @property
    def windows(self) -> int:
        """W."""
        return len(self.truth)

    @property
    def size(self) -> float:
        """Known values of a window, on average."""
        return float(self.known.sum(axis=1).mean())

    @property
    def trust(self) -> float:
        """How far factors are followed, as a power. A network that has learned many series knows how wide its bands
        should be in a usual time, and a few windows, which all series have at once, may tell of a hard one or an easy
        one; so they count by how many times there were, not by how many series."""
        series = len(np.unique(self.names))
        times = self.windows / series / self.shared
        return times / (times + TIMES_PRIOR) if series >= MANY_SERIES else 1.0

    @property
    def alike(self) -> float:
        """How many errors usually say as much as an independent one."""
        return (1 + (self.size - 1) * USUAL_CORRELATION) * self.shared

    def ratios(self, low: int) -> np.ndarray:
        """How many half-widths of the band from quantile `low` on the truth lies away from the median, (W, H)."""
        median = self.forecasts[..., self.forecasts.shape[-1] // 2]
        below = self.truth < median
        end = np.where(below, self.forecasts[..., low], self.forecasts[..., -1 - low])
        both = np.stack([self.truth, end])
        reached, half = distances(
            both, median[None], self.positive[None, :, None] & below[None] & (end > 0)[None]
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(reached == 0, 0.0, reached / half) / self.own[:, None]
        return np.minimum(ratios, LARGEST_FACTOR)

    def spread(self, low: int, level: float) -> float:
        """Logarithm of the deviation that a band says, were it normal, in units of the scale; NaN if unknown."""
        width = self.forecasts[..., -1 - low] - self.forecasts[..., low]
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithm = np.log(width / (2 * normal(level) * self.scale[:, None]))
        return float(mean(np.where(np.isfinite(logarithm), logarithm, np.nan)))


def distances(values: np.ndarray, median: np.ndarray, in_ratio: np.ndarray) -> np.ndarray:
    """How far values lie from the median: their difference, or the logarithm of their ratio where `in_ratio`.

    Below the median of a series that cannot be negative, bands reach down in ratios: so they never pass zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(in_ratio, np.log(median / np.maximum(values, 0.0)), np.abs(values - median))


def band_factors(held: HeldOut, low: int, level: float) -> np.ndarray:
    """The factors (H,) of the band from quantile `low` on, which is to hold `level` of the truth."""
    ratios = held.ratios(low)
    profile = _profile(ratios, held)
    found = _factor(ratios / profile, held, low, level) * profile
    return np.clip(found**held.trust, SMALLEST_FACTOR, LARGEST_FACTOR)


def series_factors(held: HeldOut, low: int) -> dict[str, float]:
    """Factors of single series, by name: their errors beside those of all, shrunk towards 1 the fewer they are."""
    ratios = np.minimum(held.ratios(low), WILD)
    everywhere = float(ratios[held.known].mean())
    factors = {}
    for name in np.unique(held.names):
        rows = held.names == name
        known = held.known[rows]
        count, own = known.sum() / held.alike, float(ratios[rows][known].mean())
        if count >= FEWEST_OF_SERIES and own > 0 and not rows.all():
            excess = float(np.clip(math.log(own / everywhere), -FURTHEST, FURTHEST))
            factors[str(name)] = math.exp(excess * count / (count + SERIES_PRIOR))
    return factors


def _factor(ratios: np.ndarray, held: HeldOut, low: int, level: float) -> float:
    """One factor for all steps."""
    values = ratios[held.known]
    scale = _log_scale(values, len(values) / held.alike, level, _prior(held.spread(low, level)))
    count = len(values) / _design_effect(ratios, held, level)
    by_scale = scale + math.log(student((1 + level) / 2, count + PRIOR_FREEDOM) / normal(level))
    wanted = level * (1 + 1 / count)  # of `count` errors, so many lie below the next one on average
    if wanted >= 1:
        return math.exp(by_scale)
    tail = count * (1 - level)
    weight = tail / (tail + TAIL_ERRORS)
    by_rank = math.log(max(float(np.quantile(values, wanted)), SMALLEST_FACTOR))
    return math.exp(weight * by_rank + (1 - weight) * by_scale)


def _profile(ratios: np.ndarray, held: HeldOut) -> np.ndarray:
    """How ratios grow along the horizon, (H,): a power of the step, shrunk to none where errors are few."""
    counts = held.known.sum(axis=0)
    sizes = np.where(held.known, np.minimum(ratios, WILD), 0.0).sum(axis=0) / np.maximum(counts, 1)
    usable = (counts > 0) & (sizes > 0)
    if usable.sum() < 2:
        return np.ones(len(counts))
    position = np.log1p(np.arange(len(counts)))
    position = position - np.average(position[usable], weights=counts[usable])
    moment = np.average(position[usable] ** 2, weights=counts[usable])
    slope = np.average(position[usable] * np.log(sizes[usable]), weights=counts[usable]) / moment
    count = counts.sum() / held.alike
    slope = float(np.clip(slope, -STEEPEST, STEEPEST)) * count / (count + STEPS_PRIOR)
    return np.asarray(np.exp(slope * position))


def _prior(spread: float) -> float:
    """Logarithm of how many times too narrow bands are, before any window has spoken.

    The narrower the bands are beside the errors of a naive forecast, the less they are to be believed."""
    if math.isnan(spread):
        return USUAL_LOG_SCALE
    return min(max(USUAL_LOG_SCALE - DOUBT * (spread - USUAL_SPREAD), 0.0), MOST_DOUBT)


def _log_scale(values: np.ndarray, count: float, level: float, prior: float) -> float:
    """Logarithm of how many times too narrow the bands are, if errors are normal: from their mean size, to which wild
    ones add no more than `WILD` deviations each, and a prior that counts as `PRIOR_COUNT` errors."""
    deviations = np.minimum(values * normal(level), WILD * math.exp(prior))
    size = max(float(deviations.mean()) * math.sqrt(math.pi / 2), SMALLEST_FACTOR)
    return (count * math.log(size) + PRIOR_COUNT * prior) / (count + PRIOR_COUNT)


def _design_effect(ratios: np.ndarray, held: HeldOut, level: float) -> float:
    """How many errors say as much about a quantile as an independent one (Kish 1965).

    Within a window, 1 where errors are independent, H where all of them miss the band together; few windows cannot
    show it. Windows that overlap count once."""
    if held.windows < FEWEST_WINDOWS:
        return held.alike
    outside = ratios > np.quantile(ratios[held.known], level)
    excess = np.where(held.known, outside - (1 - level), 0.0).sum(axis=1)
    found = (
        float(np.clip((excess**2).mean() / (held.size * level * (1 - level)), 1.0, held.size)) * held.shared
    )
    return (held.windows * found + USUAL_WINDOWS * held.alike) / (held.windows + USUAL_WINDOWS)


def normal(level: float) -> float:
    """Half the width of a central band of a standard normal distribution."""
    return NormalDist().inv_cdf((1 + level) / 2)


def student(probability: float, freedom: float) -> float:
    """Quantile of Student's t (Cornish and Fisher's expansion, in Abramowitz and Stegun 1964, 26.7.5).

    >>> round(student(0.975, 4.0), 2), round(student(0.95, 10.0), 3)
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
