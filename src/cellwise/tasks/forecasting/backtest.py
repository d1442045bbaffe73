"""Forecasting the past as if it were the future: at several cutoffs the model sees what lies before, and is
measured by what came after, always beside the simple methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cellwise.tasks.forecasting.metrics import Scores, naive_scale, score
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.simple import simple_methods

__all__ = ["Backtest", "Predict", "cutoff_indices", "rolling_forecasts", "windows_at"]

Predict = Callable[[Panel, int], np.ndarray]
CHUNK = 256  # windows forecast at once: bounds the memory, not the result


@dataclass(frozen=True, eq=False)
class Backtest:
    """Truth and forecasts at every cutoff.

    panel: what was measured; cutoffs (N, C): observations before each, -1 where a series has none that
    early; y (N, C, H): the truth, NaN where missing or left out; forecasts: model name -> (N, C, H, Q), the
    own model first, then the simple methods, SeasonalNaive among them; scale (N, C): what MASE divides by;
    levels: central bands in percent."""

    panel: Panel
    cutoffs: np.ndarray
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
        return int((self.cutoffs >= 0).sum())

    @property
    def model(self) -> str:
        """Name of the model that is measured."""
        return next(iter(self.forecasts))

    @property
    def metric(self) -> str:
        """The error that models are compared by: MAE for one series, MASE for several, whose units may differ."""
        told = np.isfinite(self._scores[self.model].overall["MASE"])
        return "MASE" if len(self.panel) > 1 and told else "MAE"

    @property
    def simple(self) -> tuple[str, ...]:
        """The simple methods, from the best to the worst by `metric` on these windows."""
        errors = {
            name: each.overall[self.metric] for name, each in self._scores.items() if name != self.model
        }
        return tuple(sorted(errors, key=lambda name: np.nan_to_num(errors[name], nan=np.inf)))

    @property
    def shown(self) -> tuple[str, ...]:
        """What a person compares: the model, the best simple method, and the seasonal naive forecast."""
        naive = [NAIVE_NAME] if NAIVE_NAME in self.forecasts else []
        return tuple(dict.fromkeys((self.model, *self.simple[:1], *naive)))

    def scores(self) -> dict[str, Scores]:
        """Model name -> its scores."""
        return dict(self._scores)

    @cached_property
    def _scores(self) -> dict[str, Scores]:
        return {
            name: score(self.y, forecast, self.quantiles, self.scale, self.levels)
            for name, forecast in self.forecasts.items()
        }

    def times(self, series: int, cutoff: int) -> np.ndarray:
        """The times (H,) that were forecast for one series at one cutoff."""
        last = self.panel.times[series][self.cutoffs[series, cutoff] - 1]
        return self.panel.frequency.future(last, self.horizon)


def cutoff_indices(lengths: np.ndarray, cutoffs: int, step: int, horizon: int, shortest: int) -> np.ndarray:
    """Observations before each cutoff, int64 (N, cutoffs), oldest first: the last window ends where the
    series ends.

    -1 where fewer than `shortest` observations would lie before the cutoff.
    """
    back = horizon + step * np.arange(cutoffs - 1, -1, -1)
    indices = lengths[:, None] - back
    return np.where(indices >= shortest, indices, -1)


def windows_at(panel: Panel, cutoffs: np.ndarray, horizon: int) -> tuple[Panel, np.ndarray, np.ndarray]:
    """All windows as one panel that ends at the cutoffs, the truth (W, H) after them, their indices (W, 2)
    in `cutoffs`."""
    windows = np.argwhere(cutoffs >= 0)
    chosen = panel.select([int(i) for i, _ in windows])
    cut = chosen.cut([int(cutoffs[i, c]) for i, c in windows], reach=horizon)
    truth = np.full((len(windows), horizon), np.nan)
    for w, (i, c) in enumerate(windows):
        after = panel.y[i][cutoffs[i, c] : cutoffs[i, c] + horizon]
        truth[w, : len(after)] = after
    return cut, truth, windows


def rolling_forecasts(
    predict: Predict,
    panel: Panel,
    cutoffs: np.ndarray,
    horizon: int,
    *,
    name: str,
    quantiles: Sequence[float],
    levels: Sequence[int],
) -> Backtest:
    """Forecast at every cutoff and lay the forecasts of the simple methods beside it.

    `predict` gets a panel that holds nothing of y and past after a cutoff.
    """
    cut, truth, windows = windows_at(panel, cutoffs, horizon)
    season = panel.frequency.season_length
    methods = simple_methods(cut)
    shape = (*cutoffs.shape, horizon)
    y, scale = np.full(shape, np.nan), np.full(cutoffs.shape, np.nan)
    forecasts = {
        each: np.full((*shape, len(quantiles)), np.nan) for each in (name, *(m.name for m in methods))
    }
    for start in range(0, len(windows), CHUNK):
        part = range(start, min(start + CHUNK, len(windows)))
        at, known = tuple(windows[part].T), cut.select(part)
        y[at], forecasts[name][at] = truth[part], predict(known, horizon)
        scale[at] = [naive_scale(each, season) for each in known.y]
        for method in methods:
            forecasts[method.name][at] = method.forecast(known, horizon, quantiles)
    return Backtest(panel, cutoffs, y, forecasts, tuple(quantiles), scale, tuple(levels))
