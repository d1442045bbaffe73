"""The seasonal naive forecast: what every forecast has to beat. It repeats the last season."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

__all__ = ["NAIVE_NAME", "seasonal_naive"]

NAIVE_NAME = "SeasonalNaive"


def seasonal_naive(y: np.ndarray, horizon: int, season_length: int, quantiles: Sequence[float]) -> np.ndarray:
    """Quantiles (horizon, Q) for what follows y (T,): the value one season before, or before that if it is
    missing.

    The bands are normal with the spread of y's own seasonal changes, growing with the square root of the
    number of seasons ahead (Hyndman and Athanasopoulos, Forecasting: Principles and Practice, section 5.5).
    """
    season = season_length if len(y) >= season_length else 1
    last = np.full(season, np.nan)
    for back in range(len(y) // season):
        older = y[len(y) - (back + 1) * season : len(y) - back * season]
        last = np.where(np.isnan(last), older, last)
        if not np.isnan(last).any():
            break
    known = y[~np.isnan(y)]
    last = np.where(np.isnan(last), known[-1] if len(known) else np.nan, last)
    steps = np.arange(horizon)
    changes = y[season:] - y[:-season]
    changes = changes[~np.isnan(changes)]
    spread = float(np.sqrt((changes**2).mean())) if len(changes) else 0.0
    deviations = spread * np.sqrt(steps // season + 1)
    normal = np.array([NormalDist().inv_cdf(q) for q in quantiles])
    return last[steps % season][:, None] + deviations[:, None] * normal
