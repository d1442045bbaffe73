"""Forecasts and scores as frames of the kind that came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellwise.tasks.errors import OptionError
from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.frames import FrameSchema
from cellwise.tasks.forecasting.metrics import band_quantiles
from cellwise.tasks.forecasting.panel import Panel

__all__ = [
    "Evaluation",
    "backtest_frame",
    "check_by",
    "forecast_columns",
    "forecast_frame",
    "quantiles_of",
    "scores_frame",
]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A backtest, the schema of the table it was made of, and whether nothing in it was looked at before."""

    backtest: Backtest
    schema: FrameSchema
    is_test: bool


def quantiles_of(levels: Sequence[int]) -> tuple[float, ...]:
    """The quantiles that bound central bands of these percentages, and the median between them."""
    return tuple(sorted({0.5, *(q for level in levels for q in band_quantiles(level))}))


def forecast_columns(
    name: str, forecast: np.ndarray, quantiles: Sequence[float], levels: Sequence[int]
) -> dict[str, np.ndarray]:
    """forecast (..., Q) as flat columns: the median under the model's name, then the bands."""
    index = {q: i for i, q in enumerate(quantiles)}
    columns = {name: forecast[..., index[0.5]].reshape(-1)}
    for level in sorted(levels):
        low, high = band_quantiles(level)
        columns[f"{name}-lo-{level}"] = forecast[..., index[low]].reshape(-1)
        columns[f"{name}-hi-{level}"] = forecast[..., index[high]].reshape(-1)
    return columns


def forecast_frame(
    panel: Panel,
    forecast: np.ndarray,
    quantiles: Sequence[float],
    levels: Sequence[int],
    name: str,
    schema: FrameSchema,
) -> Any:
    """Forecasts (N, H, Q) after the end of every series."""
    horizon = forecast.shape[1]
    times = [panel.frequency.future(times[-1], horizon) for times in panel.times]
    columns = {
        schema.id: np.repeat(np.array(panel.ids, dtype=object), horizon),
        schema.time: np.concatenate(times),
    }
    return schema.frame(columns | forecast_columns(name, forecast, quantiles, levels))


def backtest_frame(backtest: Backtest, schema: FrameSchema, column: str) -> Any:
    """Every forecast of a backtest beside the truth: id, time, cutoff (the last time known), y, the model, the best
    simple method and the seasonal naive forecast. column: of the model's medians."""
    windows = np.argwhere(backtest.cutoffs >= 0)
    horizon = backtest.horizon
    rows = (windows[:, 0], windows[:, 1])
    cutoffs = np.array([backtest.panel.times[i][backtest.cutoffs[i, c] - 1] for i, c in windows])
    columns = {
        schema.id: np.repeat(np.array([backtest.panel.ids[i] for i in rows[0]], dtype=object), horizon),
        schema.time: np.concatenate([backtest.times(i, c) for i, c in windows]),
        "cutoff": np.repeat(cutoffs, horizon),
        schema.target: backtest.y[rows].reshape(-1),
    }
    for name in backtest.shown:
        forecast = backtest.forecasts[name][rows]
        shown = column if name == backtest.model else name
        columns |= forecast_columns(shown, forecast, backtest.quantiles, backtest.levels)
    return schema.frame(columns)


def check_by(by: str) -> None:
    """Raise OptionError if scores cannot be shown by this."""
    if by not in ("all", "series", "horizon"):
        raise OptionError(f"by must be 'all', 'series' or 'horizon', not {by!r}")


def scores_frame(backtest: Backtest, schema: FrameSchema, by: str = "all") -> Any:
    """The scores as a table: one row per model, the simple ones from the best to the worst; or one per series
    (`by="series"`) or step (`by="horizon"`) and model, of those that a person compares. OptionError for any other."""
    check_by(by)
    parts: list[dict[str, np.ndarray]] = []
    found = backtest.scores()
    for name in (backtest.model, *backtest.simple) if by == "all" else backtest.shown:
        scores = found[name]
        if by == "series":
            keys = {schema.id: np.array(backtest.panel.ids, dtype=object)}
            values = scores.by_series
        elif by == "horizon":
            keys = {"step": np.arange(1, backtest.horizon + 1)}
            values = scores.by_horizon
        else:
            keys, values = {}, {metric: np.array([value]) for metric, value in scores.overall.items()}
        count = len(next(iter(values.values())))
        parts.append({"model": np.full(count, name, dtype=object), **keys, **values})
    return schema.frame({key: np.concatenate([part[key] for part in parts]) for key in parts[0]})
