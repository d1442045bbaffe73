"""The charts of a forecast's report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.metrics import band_quantiles, mean
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.report.charts import (
    BASELINE,
    FAINT,
    GOOD,
    INK,
    MODEL,
    chart,
    chart_label,
    charts,
    date_axis,
    legend,
    thousands,
    whole_numbers,
)

__all__ = [
    "Ahead",
    "ahead_plot",
    "backtest_plot",
    "coverage_plot",
    "cutoff_plot",
    "error_plot",
    "grid_plot",
    "series_plot",
]


@dataclass(frozen=True, eq=False)
class Ahead:
    """One series and its forecast: name, times (T,), y (T,), future (H,), forecast (H, Q)."""

    name: str
    times: np.ndarray
    y: np.ndarray
    future: np.ndarray
    forecast: np.ndarray


def ahead_plot(
    ahead: Ahead, quantiles: Sequence[float], levels: Sequence[int], model: str, target: str
) -> str:
    """The end of a series and the forecast that follows it."""
    shown = min(len(ahead.y), max(3 * len(ahead.future), 40))

    def draw(axes: Any) -> None:
        axes.plot(ahead.times[-shown:], ahead.y[-shown:], color=INK, linewidth=1.2, label=chart_label(target))
        _fan(axes, ahead.future, ahead.forecast, quantiles, levels, model)
        axes.axvline(ahead.times[-1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        date_axis(axes, ahead.times)
        legend(axes)

    return chart(draw, 9.6, 3.3, "ahead")


def backtest_plot(backtest: Backtest, series: int, target: str, windows: int = 4) -> str:
    """The last windows of a backtest: what happened, what was forecast, what the seasonal naive said."""
    cutoffs = _apart(backtest.cutoffs[series], backtest.horizon)[-windows:]

    def draw(axes: Any) -> None:
        first, last = (
            backtest.cutoffs[series, cutoffs[0]],
            backtest.cutoffs[series, cutoffs[-1]] + backtest.horizon,
        )
        begin = max(0, first - backtest.horizon)
        times, y = backtest.panel.times[series][begin:last], backtest.panel.y[series][begin:last]
        axes.plot(times, y, color=INK, linewidth=1.1, label=chart_label(target), zorder=3)
        for k, c in enumerate(cutoffs):
            future = backtest.times(series, c)
            naive = _median(backtest.forecasts[NAIVE_NAME][series, c], backtest.quantiles)
            axes.plot(
                future,
                naive,
                color=BASELINE,
                linewidth=1,
                linestyle=(0, (3, 2)),
                label="seasonal naive" if k == 0 else None,
            )
            own = backtest.forecasts[backtest.model][series, c]
            _fan(axes, future, own, backtest.quantiles, backtest.levels, backtest.model if k == 0 else None)
            axes.axvline(_before(future), color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        date_axis(axes, times)
        legend(axes)

    return chart(draw, 9.6, 3.6, "backtest")


def grid_plot(
    panels: Sequence[Ahead],
    quantiles: Sequence[float],
    levels: Sequence[int],
    model: str,
    backtest: Backtest | None,
) -> str:
    """Several series: the end of each, its last backtest window where there is one, and the forecast that
    follows."""

    def drawing(ahead: Ahead) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            shown = min(len(ahead.y), max(3 * len(ahead.future), 40))
            axes.plot(ahead.times[-shown:], ahead.y[-shown:], color=INK, linewidth=1.1)
            _fan(axes, ahead.future, ahead.forecast, quantiles, levels, model)
            if backtest is not None:
                _last_window(axes, backtest, ahead.name)
            axes.axvline(ahead.times[-1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
            axes.set_title(chart_label(ahead.name))
            date_axis(axes, ahead.times, most=5)

        return draw

    return charts([drawing(ahead) for ahead in panels], 2, 9.6, 2.3 * math.ceil(len(panels) / 2), "grid")


def error_plot(by_horizon: dict[str, np.ndarray], metric: str, step: str) -> str:
    """An error by step of the horizon, for each model."""

    def draw(axes: Any) -> None:
        for name, values in by_horizon.items():
            own = name != NAIVE_NAME
            steps = np.arange(1, len(values) + 1)
            label = chart_label(name) if own else "seasonal naive"
            style = {"linestyle": "-" if own else (0, (3, 2)), "marker": "o" if len(values) <= 31 else None}
            axes.plot(
                steps,
                values,
                color=MODEL if own else BASELINE,
                linewidth=1.6,
                markersize=3,
                label=label,
                **style,
            )
        axes.set_ylim(bottom=0)
        _step_axis(axes, step)
        axes.set_ylabel(metric)
        legend(axes)

    return chart(draw, 4.7, 3.0, "error")


def cutoff_plot(backtest: Backtest, series: int) -> str:
    """The error of each window of one series by its cutoff: whether the model is better at all times."""

    def draw(axes: Any) -> None:
        shown = np.flatnonzero(backtest.cutoffs[series] >= 0)
        times = np.array([backtest.panel.times[series][backtest.cutoffs[series, c] - 1] for c in shown])
        for name, forecast in backtest.forecasts.items():
            own = name != NAIVE_NAME
            point = forecast[series, shown, :, list(backtest.quantiles).index(0.5)]
            errors = mean(np.abs(backtest.y[series, shown] - point), axis=1)
            style = (
                {"color": MODEL, "linestyle": "-"} if own else {"color": BASELINE, "linestyle": (0, (3, 2))}
            )
            label = chart_label(name) if own else "seasonal naive"
            axes.plot(times, errors, linewidth=1.6, marker="o", markersize=3, label=label, **style)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("MAE")
        date_axis(axes, times, most=6)
        legend(axes)

    return chart(draw, 4.7, 3.0, "cutoff")


def coverage_plot(by_horizon: dict[str, np.ndarray], levels: Sequence[int], step: str) -> str:
    """The share of truths inside each band by step of the horizon, against what was promised (dotted)."""

    def draw(axes: Any) -> None:
        for level, colour in zip(sorted(levels), (MODEL, GOOD, BASELINE, INK) * len(levels), strict=False):
            values = by_horizon[f"coverage {level}"]
            axes.axhline(level, color=colour, linewidth=1, linestyle=(0, (1, 2)))
            axes.plot(
                np.arange(1, len(values) + 1), values, color=colour, linewidth=1.6, label=f"{level} % band"
            )
        axes.set_ylim(0, 102)
        _step_axis(axes, step)
        axes.set_ylabel("inside the band, %")
        axes.legend(loc="lower left", ncols=2)

    return chart(draw, 4.7, 3.0, "coverage")


def series_plot(by_series: dict[str, np.ndarray]) -> str:
    """Each series as a dot: MASE of the seasonal naive (across) against that of the model (up); below the
    line is better."""

    def draw(axes: Any) -> None:
        (model, own), (_, naive) = by_series.items()
        top = float(np.nanmax(np.concatenate([own, naive]))) * 1.05
        axes.plot([0, top], [0, top], color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        size = 36 if len(own) <= 20 else 16 if len(own) <= 200 else 7
        axes.scatter(naive, own, s=size, color=MODEL, alpha=0.55, linewidths=0)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("MASE of the seasonal naive")
        axes.set_ylabel(f"MASE of {chart_label(model)}")

    return chart(draw, 4.7, 3.0, "series")


def _fan(
    axes: Any,
    times: np.ndarray,
    forecast: np.ndarray,
    quantiles: Sequence[float],
    levels: Sequence[int],
    name: str | None,
) -> None:
    """Bands from the widest in, then the median."""
    quantiles = list(quantiles)
    for level in sorted(levels, reverse=True):
        low, high = (forecast[:, quantiles.index(q)] for q in band_quantiles(level))
        label = None if name is None else f"{level} % band"
        axes.fill_between(times, low, high, color=MODEL, alpha=0.19, linewidth=0, label=label)
    axes.plot(
        times,
        _median(forecast, quantiles),
        color=MODEL,
        linewidth=1.7,
        label=None if name is None else chart_label(name),
    )


def _last_window(axes: Any, backtest: Backtest, name: str) -> None:
    series = backtest.panel.ids.index(name)
    if backtest.cutoffs[series, -1] < 0:
        return
    future = backtest.times(series, backtest.cutoffs.shape[1] - 1)
    own = backtest.forecasts[backtest.model][series, -1]
    _fan(axes, future, own, backtest.quantiles, backtest.levels, None)


def _apart(cutoffs: np.ndarray, horizon: int) -> list[int]:
    """Cutoffs whose windows do not overlap, counted back from the last; oldest first."""
    chosen: list[int] = []
    for c in range(len(cutoffs) - 1, -1, -1):
        if cutoffs[c] >= 0 and (not chosen or cutoffs[c] + horizon <= cutoffs[chosen[-1]]):
            chosen.append(c)
    return chosen[::-1]


def _median(forecast: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    return forecast[:, list(quantiles).index(0.5)]


def _before(future: np.ndarray) -> Any:
    """Half a step before the first forecast."""
    return future[0] - (future[1] - future[0]) / 2 if len(future) > 1 else future[0]


def _step_axis(axes: Any, step: str) -> None:
    axes.set_xlabel(f"{step}s ahead" if " " not in step else f"steps of {step} ahead")
    whole_numbers(axes)
    axes.set_xlim(left=0.5)
    thousands(axes)
