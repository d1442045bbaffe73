"""Scores in a form that a person reads, on a page or on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.metrics import Scores, mean
from cellwise.tasks.forecasting.naive import NAIVE_NAME

__all__ = ["Cell", "Figures", "Row", "figure", "scores_figures", "verdict"]


@dataclass(frozen=True)
class Cell:
    """A figure as text, and whether it is the best of its column."""

    text: str
    wins: bool = False


@dataclass(frozen=True)
class Row:
    """A named row of figures."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Figures:
    """A table."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def figure(value: float) -> str:
    """A number with as many digits as one reads: 243.6, 0.528, 12,345.

    >>> [figure(v) for v in (243.635, 0.52757, 12345.6, float("nan"), 0.0)]
    ['243.6', '0.528', '12,346', '–', '0']
    """
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, min(6, 3 - int(np.floor(np.log10(abs(value))))) - (abs(value) < 10))
    return f"{value:,.{digits}f}"


def scores_figures(scores: Mapping[str, Scores], levels: Sequence[int]) -> Figures:
    """The table of the models; the smaller error wins, and the coverage nearer to what the band promises."""
    columns = tuple(next(iter(scores.values())).overall)
    goals = {f"coverage {level}": float(level) for level in levels}
    distance = {c: {m: abs(s.overall[c] - goals.get(c, 0.0)) for m, s in scores.items()} for c in columns}
    rows = tuple(
        Row(
            m,
            tuple(
                Cell(_shown(c, s.overall[c]), distance[c][m] <= min(distance[c].values())) for c in columns
            ),
        )
        for m, s in scores.items()
    )
    return Figures(tuple(_heading(c) for c in columns), rows)


def verdict(scores: Mapping[str, Scores], backtest: Backtest) -> tuple[str, bool]:
    """One sentence on who is better, and where that does not hold; and whether the model is."""
    own, naive = scores[backtest.model], scores[NAIVE_NAME]
    change = 100 * (1 - own.overall["MAE"] / naive.overall["MAE"]) if naive.overall["MAE"] else 0.0
    better = change > 0
    text = (
        f"{backtest.model} errs by {figure(own.overall['MAE'])} on average, the seasonal naive forecast by "
        f"{figure(naive.overall['MAE'])}: {abs(change):.0f} % {'less' if better else 'more'}."
    )
    behind = [m for m in ("MAE", "RMSE", "sMAPE", "MASE", "pinball") if own.overall[m] > naive.overall[m]]
    if better and behind:
        text += f" It is worse by {', '.join(behind)}."
    worse = own.by_horizon["MAE"] > naive.by_horizon["MAE"]
    if better and worse.any():
        text += f" At {int(worse.sum())} of {len(worse)} steps of the horizon the naive forecast is better."
    windows = {
        name: mean(np.abs(backtest.y - _median(backtest, name)), axis=2) for name in backtest.forecasts
    }
    lost_windows = int((windows[backtest.model] > windows[NAIVE_NAME]).sum())
    if better and backtest.count > 1 and lost_windows:
        text += f" In {lost_windows} of {backtest.count:,} windows the naive forecast is better."
    lost = own.by_series["MASE"] > naive.by_series["MASE"]
    if better and len(lost) > 1 and lost.any():
        measured = int(np.isfinite(own.by_series["MASE"]).sum())
        text += f" For {int(lost.sum())} of {measured} series the naive forecast is better."
    return text, better


def _median(backtest: Backtest, name: str) -> np.ndarray:
    return backtest.forecasts[name][..., backtest.quantiles.index(0.5)]


def _heading(metric: str) -> str:
    return f"{metric} %" if metric.startswith("coverage") else metric


def _shown(metric: str, value: float) -> str:
    return f"{value:.1f}" if metric.startswith("coverage") and np.isfinite(value) else figure(value)
