"""Simple methods: what every forecast has to beat. Each takes a panel to quantiles (N, H, Q) in units of y, as the
network does.

The bands are normal, with the spread that the method's own errors show in the past (Hyndman and Athanasopoulos,
Forecasting: Principles and Practice, section 5.5). A series that was never negative is not forecast below zero.

Shapes: T steps of a series, H steps of the horizon, Q quantiles, N series, m steps of a season."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cellwise.tasks.forecasting.naive import NAIVE_NAME, seasonal_naive
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.theta import theta

__all__ = [
    "NAIVE_NAME",
    "SimpleMethod",
    "method_of",
    "plausible_methods",
    "seasons_of",
    "simple_methods",
]

Forecast = Callable[[Sequence[np.ndarray], int, Sequence[float]], np.ndarray]

LEAST_CYCLES = 2  # that a series must cover for a season to be plausible
MEAN_SEASONS, CHANGE_SEASONS = 4, 5  # in the mean of the last seasons, and in the change from one to the next
LONGEST_THETA = 400  # steps of a season whose indices can be told from noise
DAYS_OF_NUMBERS = (24, 48, 96)  # seasons of numbered steps that may be days, so that seven may be a week


@dataclass(frozen=True, eq=False)
class SimpleMethod:
    """A method by its name; series: y (T_i,) each, horizon, quantiles -> (N, H, Q)."""

    name: str
    series: Forecast

    def forecast(self, panel: Panel, horizon: int, quantiles: Sequence[float]) -> np.ndarray:
        """Quantiles (N, H, Q) for the `horizon` steps after each series, in units of y.

        Every series must have an observation."""
        made = self.series(panel.y, horizon, quantiles)
        never_negative = np.array([np.nanmin(y) >= 0 for y in panel.y], dtype=bool)
        return np.where(never_negative[:, None, None], np.maximum(made, 0.0), made)


def simple_methods(panel: Panel) -> tuple[SimpleMethod, ...]:
    """The methods for series such as those of a panel; the seasonal naive one at the panel's own season first."""
    return plausible_methods(seasons_of(panel))


def plausible_methods(seasons: Sequence[int]) -> tuple[SimpleMethod, ...]:
    """The methods for series with these seasons, in steps, the shortest first; 1 is no season."""
    own, *longer = repeated = _whole_cycles(seasons)
    methods = [SimpleMethod(NAIVE_NAME, _each(seasonal_naive, own))]
    methods += [SimpleMethod(f"{NAIVE_NAME}({m})", _each(seasonal_naive, m)) for m in longer]
    seasons, repeated = [m for m in seasons if m > 1], [m for m in repeated if m > 1]
    methods += [
        SimpleMethod(f"SeasonalMean({m})", _each(seasonal_mean, m)) for m in repeated if m <= LONGEST_THETA
    ]
    methods += [SimpleMethod(f"SeasonalDrift({m})", _each(seasonal_drift, m)) for m in repeated]
    if own > 1:
        methods.append(SimpleMethod("Naive", _each(seasonal_naive, 1)))
    methods += [SimpleMethod("Mean", _each(seasonless_mean, 1)), SimpleMethod("Drift", _each(drift, 1))]
    return (*methods, SimpleMethod("Theta", _theta([m for m in seasons if m <= LONGEST_THETA])))


def method_of(name: str, seasons: Sequence[int]) -> SimpleMethod:
    """The method of this name among those for these seasons. ValueError if there is none."""
    for method in plausible_methods(seasons):
        if method.name == name:
            return method
    raise ValueError(f"there is no simple method {name!r:.60}")


def seasons_of(panel: Panel) -> tuple[int, ...]:
    """The panel's own season, 1 for none, and the longer cycles of its frequency that some series covers twice."""
    frequency = panel.frequency
    own = frequency.season_length
    longer: Iterable[int] = frequency.cycles.values()
    if frequency.is_integer and own in DAYS_OF_NUMBERS:
        longer = [7 * own]
    longest = int(panel.lengths.max()) if len(panel) else 0
    return (own, *(m for m in longer if m > own and longest >= LEAST_CYCLES * m))


def _whole_cycles(seasons: Sequence[int]) -> list[int]:
    """Each season as so many whole shorter ones: 364 days for a year, so that a Monday is compared with Mondays."""
    whole: list[int] = []
    for m in seasons:
        whole.append(round(m / whole[-1]) * whole[-1] if whole else m)
    return whole


def _each(method: Callable[..., np.ndarray], season_length: int) -> Forecast:
    def forecast(series: Sequence[np.ndarray], horizon: int, quantiles: Sequence[float]) -> np.ndarray:
        made = [method(y, horizon, season_length, quantiles) for y in series]
        return np.stack(made) if made else np.zeros((0, horizon, len(quantiles)))

    return forecast


def _theta(seasons: Sequence[int]) -> Forecast:
    def forecast(series: Sequence[np.ndarray], horizon: int, quantiles: Sequence[float]) -> np.ndarray:
        if not len(series):
            return np.zeros((0, horizon, len(quantiles)))
        return normal_bands(*theta(series, horizon, seasons), quantiles)

    return forecast


def seasonless_mean(y: np.ndarray, horizon: int, _: int, quantiles: Sequence[float]) -> np.ndarray:
    """The mean of all of y."""
    known = y[~np.isnan(y)]
    deviation = known.std(ddof=1) * np.sqrt(1 + 1 / len(known)) if len(known) > 1 else 0.0
    return normal_bands(np.full(horizon, known.mean()), np.full(horizon, deviation), quantiles)


def drift(y: np.ndarray, horizon: int, _: int, quantiles: Sequence[float]) -> np.ndarray:
    """The last value, moving on by the mean change: the line through the first value and the last."""
    step = np.flatnonzero(~np.isnan(y))
    known, covered = y[step], int(step[-1] - step[0])
    slope = (known[-1] - known[0]) / covered if covered else 0.0
    ahead = np.arange(1, horizon + 1) + len(y) - 1 - step[-1]
    apart = np.diff(step)
    errors = (np.diff(known) - slope * apart) / np.sqrt(apart)
    spread = np.sqrt((errors**2).sum() / max(len(errors) - 1, 1))
    deviations = spread * np.sqrt(ahead * (1 + ahead / max(covered, 1)))
    return normal_bands(known[-1] + slope * ahead, deviations, quantiles)


def seasonal_mean(y: np.ndarray, horizon: int, season_length: int, quantiles: Sequence[float]) -> np.ndarray:
    """Each phase's mean over the last four seasons; the seasonal naive forecast where there are none."""
    m = season_length
    if len(y) < (LEAST_CYCLES + 1) * m:
        return seasonal_naive(y, horizon, m, quantiles)
    seasons = _cycles(y, m, 3 * MEAN_SEASONS)
    means = _mean(seasons[-MEAN_SEASONS:])
    means = np.where(np.isnan(means), _mean(means), means)
    errors = [seasons[i] - _mean(seasons[max(0, i - MEAN_SEASONS) : i]) for i in range(1, len(seasons))]
    spread = np.nan_to_num(np.sqrt(_mean(np.concatenate(errors) ** 2)))
    steps = np.arange(horizon)
    deviations = spread * np.sqrt(1 + steps // m / MEAN_SEASONS)
    return normal_bands(means[steps % m], deviations, quantiles)


def seasonal_drift(y: np.ndarray, horizon: int, season_length: int, quantiles: Sequence[float]) -> np.ndarray:
    """The last season, moving on by the mean change from season to season of the last five."""
    m = season_length
    naive = seasonal_naive(y, horizon, m, [0.5])[:, 0]
    recent = y[-(CHANGE_SEASONS + 1) * m :]
    changes = recent[m:] - recent[:-m]
    changes = changes[~np.isnan(changes)]
    if len(changes) < m:
        return seasonal_naive(y, horizon, m, quantiles)
    change, count = changes.mean(), len(changes) / m
    ahead = np.arange(horizon) // m + 1
    spread = np.sqrt(((changes - change) ** 2).sum() / max(len(changes) - 1, 1))
    return normal_bands(naive + change * ahead, spread * np.sqrt(ahead * (1 + ahead / count)), quantiles)


def normal_bands(point: np.ndarray, deviations: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Quantiles (..., Q) of normal errors around forecasts (...)."""
    normal = np.array([NormalDist().inv_cdf(q) for q in quantiles])
    return np.asarray(point[..., None] + deviations[..., None] * normal)


def _cycles(y: np.ndarray, season_length: int, most: int) -> np.ndarray:
    """The last whole cycles (K, m) of y, at most so many, the oldest first."""
    count = min(most, len(y) // season_length)
    return y[len(y) - count * season_length :].reshape(count, season_length)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is known; NaN where nothing is."""
    known = ~np.isnan(values)
    return np.asarray(
        np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    )
