"""Forecasting the past as if it were the future: at several cutoffs the model sees what lies before, and is
measured by what came after, always beside the seasonal naive forecast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cellwise.tasks.forecasting.metrics import Scores, naive_scale, score
from cellwise.tasks.forecasting.naive import NAIVE_NAME, seasonal_naive
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Backtest", "Predict", "cutoff_indices", "rolling_forecasts", "windows_at"]

Predict = Callable[[Panel, int], np.ndarray]
CHUNK = 256  # windows forecast at once: bounds the memory, not the result


@dataclass(frozen=True, eq=False)
class Backtest:
    """Truth and forecasts at every cutoff.

    panel: what was measured; ends (N, C): observations before each cutoff, -1 where a series has none that
    early; y (N, C, H): the truth, NaN where missing or left out; forecasts: model name -> (N, C, H, Q), the
    own model first, SeasonalNaive last; scale (N, C): what MASE divides by; levels: central bands in
    percent."""

    panel: Panel
    ends: np.ndarray
    y: np.ndarray
    forecasts: dict[str, np.ndarray]
    quantiles: tuple[float, ...]
    scale: np.ndarray
    levels: tuple[int, ...]

    @property
    def horizon(self) -> int:
        """H, the steps of each forecast."""
        return self.y.shape[2]

    @property
    def count(self) -> int:
        """How many windows there are in all, over series and cutoffs."""
        return int((self.ends >= 0).sum())

    @property
    def model(self) -> str:
        """Name of the model that is measured."""
        return next(iter(self.forecasts))

    def scores(self) -> dict[str, Scores]:
        """Model name -> its scores."""
        return {
            name: score(self.y, forecast, self.quantiles, self.scale, self.levels)
            for name, forecast in self.forecasts.items()
        }

    def times(self, series: int, cutoff: int) -> np.ndarray:
        """The times (H,) that were forecast for one series at one cutoff."""
        last = self.panel.times[series][self.ends[series, cutoff] - 1]
        return self.panel.frequency.future(last, self.horizon)


def cutoff_indices(lengths: np.ndarray, cutoffs: int, step: int, horizon: int, shortest: int) -> np.ndarray:
    """Observations before each cutoff, int64 (N, cutoffs), oldest first: the last window ends where the
    series ends.

    -1 where fewer than `shortest` observations would lie before the cutoff.
    """
    back = horizon + step * np.arange(cutoffs - 1, -1, -1)
    ends = lengths[:, None] - back
    return np.where(ends >= shortest, ends, -1)


def windows_at(panel: Panel, ends: np.ndarray, horizon: int) -> tuple[Panel, np.ndarray, np.ndarray]:
    """All windows as one panel that ends at the cutoffs, the truth (W, H) after them, their places (W, 2)
    in `ends`."""
    places = np.argwhere(ends >= 0)
    chosen = panel.select([int(i) for i, _ in places])
    cut = chosen.cut([int(ends[i, c]) for i, c in places], reach=horizon)
    truth = np.full((len(places), horizon), np.nan)
    for w, (i, c) in enumerate(places):
        after = panel.y[i][ends[i, c] : ends[i, c] + horizon]
        truth[w, : len(after)] = after
    return cut, truth, places


def rolling_forecasts(
    predict: Predict,
    panel: Panel,
    ends: np.ndarray,
    horizon: int,
    *,
    name: str,
    quantiles: Sequence[float],
    levels: Sequence[int],
) -> Backtest:
    """Forecast at every cutoff and lay the seasonal naive forecast beside it.

    `predict` gets a panel that holds nothing of y and past after a cutoff.
    """
    cut, truth, places = windows_at(panel, ends, horizon)
    season = panel.frequency.season_length
    shape = (*ends.shape, horizon)
    y, scale = np.full(shape, np.nan), np.full(ends.shape, np.nan)
    own, naive = (np.full((*shape, len(quantiles)), np.nan) for _ in range(2))
    for start in range(0, len(places), CHUNK):
        part = range(start, min(start + CHUNK, len(places)))
        made = predict(cut.select(part), horizon)
        for w, forecast in zip(part, made, strict=True):
            i, c = places[w]
            y[i, c], own[i, c] = truth[w], forecast
            naive[i, c] = seasonal_naive(cut.y[w], horizon, season, quantiles)
            scale[i, c] = naive_scale(cut.y[w], season)
    forecasts = {name: own, NAIVE_NAME: naive}
    return Backtest(panel, ends, y, forecasts, tuple(quantiles), scale, tuple(levels))
