"""The Theta method (Assimakopoulos and Nikolopoulos 2000), for many series at once: simple exponential smoothing with
half of the slope as drift, as Hyndman and Billah (2003) showed it to be, on values without their seasons.

Seasons are multiplied to positive series and added to others. Instead of a test that keeps a season or drops it, its
indices are drawn towards none by how far noise explains them (James and Stein 1961), one season after the other: the
day, then what the week adds to it.

Shapes: N series, T steps, H steps of the horizon, m steps of a season."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cellwise.tasks.forecasting.season import detrended
from cellwise.tasks.forecasting.series import SMALLEST_SHARE

__all__ = ["theta"]

SEASONS, LEAST_STEPS = 10, 128  # what is looked at: the newest so many seasons, and at least so many steps
ALPHAS = np.array([0.02, 0.05, *np.arange(0.1, 1.01, 0.05)])  # tried weights of the newest value in the level
LEAST_CYCLES = 2  # of a season that is estimated
LARGEST_INDEX = 50.0  # of a logarithm


def theta(
    series: Sequence[np.ndarray], horizon: int, seasons: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and their standard deviations, (N, H) each, in the units of y.

    series: y (T_i,) each, NaN where missing, with one value at least; seasons: steps, the shortest first."""
    kept = max(SEASONS * max(seasons, default=1), LEAST_STEPS)
    size = min(kept, max(map(len, series)))
    values = np.full((len(series), size), np.nan)
    for row, y in zip(values, series, strict=True):
        row[size - len(y[-size:]) :] = y[-size:]
    known = ~np.isnan(values)
    for i in np.flatnonzero(~known.any(axis=1)).tolist():  # nothing but gaps of late
        values[i, -1] = series[i][~np.isnan(series[i])][-1]
        known[i, -1] = True
    sizes = np.abs(np.where(known, values, 0.0)).sum(axis=1) / known.sum(axis=1)
    positive = np.where(known, values, np.inf).min(axis=1) > SMALLEST_SHARE * sizes
    learned = np.log(np.where(positive[:, None], values, 1.0))
    learned = np.where(positive[:, None], learned, values)
    lengths = size - known.argmax(axis=1)
    index = np.zeros((len(series), size + horizon))
    for m in seasons:
        if size >= LEAST_CYCLES * m:
            found = season_indices(learned - index[:, :size], m) * (lengths >= LEAST_CYCLES * m)[:, None]
            index += found[:, (np.arange(size + horizon) - size) % m]
    factor = np.exp(np.where(positive[:, None], index, 0.0).clip(-LARGEST_INDEX, LARGEST_INDEX))
    shift = np.where(positive[:, None], 0.0, index)
    adjusted = (values - shift[:, :size]) / factor[:, :size]
    point, deviation = smooth_with_drift(adjusted, horizon)
    return point * factor[:, size:] + shift[:, size:], deviation * factor[:, size:]


def season_indices(values: np.ndarray, season_length: int) -> np.ndarray:
    """How far each phase lies from the level, (N, T) -> (N, m); phase 0 is that of the step after the last."""
    m = season_length
    rest = detrended(values, m)
    phase = (np.arange(m // 2, m // 2 + rest.shape[1]) - values.shape[1]) % m
    seen = ~np.isnan(rest)
    rest = np.where(seen, rest, 0.0)
    order = np.zeros((rest.shape[1], m))
    order[np.arange(len(phase)), phase] = 1.0
    count, total = seen @ order, rest @ order
    mean = total / np.maximum(count, 1)
    mean -= mean.mean(axis=1, keepdims=True)
    number = count.sum(axis=1)
    squares = (rest**2).sum(axis=1)
    within = (squares - (total**2 / np.maximum(count, 1)).sum(axis=1)).clip(min=0)
    # With one or two cycles the noise within a phase is hardly known: a cycle of the whole variance is added.
    noise = (within + m * squares / np.maximum(number, 1)) / ((number - m).clip(min=0) + m)
    between = (mean**2).sum(axis=1) / max(m - 1, 1)
    share = (1 - noise / np.maximum(between * count.mean(axis=1), 1e-300)).clip(min=0)
    return np.asarray(mean * np.where((count > 0).all(axis=1), share, 0.0)[:, None])


def smooth_with_drift(values: np.ndarray, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Simple exponential smoothing with half of the least-squares slope as drift: values (N, T), NaN where missing,
    one at least in each row, give forecasts and standard deviations (N, H).

    The weight of the newest value and the first level have the least sum of squared errors one step ahead; the weight
    is one of ALPHAS, the level is exact, as errors are linear in it. A gap leaves the level as it was. Deviations:
    sqrt(1 + (h - 1) alpha^2) times that of the errors, as of smoothing without drift (Hyndman and Athanasopoulos,
    Forecasting: Principles and Practice, section 8.7)."""
    known = ~np.isnan(values)
    last = np.where(known, np.arange(values.shape[1]), -1).max(axis=1)
    origin = values[np.arange(len(values)), last][:, None]  # keeps the sums small
    shifted = np.where(known, values - origin, 0.0)
    level, weight = np.zeros((len(values), len(ALPHAS))), np.ones((len(values), len(ALPHAS)))
    squares, products, weights = (np.zeros_like(level) for _ in range(3))
    for t in range(values.shape[1]):
        seen = known[:, t, None]
        error = np.where(seen, shifted[:, t, None] - level, 0.0)
        squares += error**2
        products += error * weight
        weights += np.where(seen, weight**2, 0.0)
        level += ALPHAS * error
        weight = np.where(seen, weight * (1 - ALPHAS), weight)
    first = products / weights
    losses = squares - first * products
    best = losses.argmin(axis=1)
    row, alpha = np.arange(len(values)), ALPHAS[best]
    count = known.sum(axis=1)
    deviation = np.sqrt(losses[row, best].clip(min=0) / np.maximum(count - 1, 1))
    ahead = np.arange(horizon)
    drift = ahead + ((1 - (1 - alpha) ** count) / alpha)[:, None]
    point = (
        origin + (level + weight * first)[row, best][:, None] + slopes(shifted, known)[:, None] / 2 * drift
    )
    return point, deviation[:, None] * np.sqrt(1 + ahead * alpha[:, None] ** 2)


def slopes(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Least-squares slopes (N,) of values (N, T) over their steps; 0 for fewer than three."""
    count = known.sum(axis=1)
    step = np.where(known, np.arange(values.shape[1]), 0.0)
    step = np.where(known, step - (step.sum(axis=1) / np.maximum(count, 1))[:, None], 0.0)
    return np.where(count < 3, 0.0, (step * values).sum(axis=1) / np.maximum((step**2).sum(axis=1), 1.0))
