"""The charts of a forecast's report. Each is drawn for a wide page, or for a narrow one (`narrow`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.metrics import band_quantiles, mean
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
    stacked,
    thousands,
    whole_numbers,
)

__all__ = [
    "DOTTED",
    "HALF",
    "NARROW",
    "SHORT",
    "WIDE",
    "Ahead",
    "Row",
    "Shown",
    "ahead_plot",
    "coverage_plot",
    "cutoff_plot",
    "error_plot",
    "fan",
    "grid_plot",
    "series_plot",
    "windows_plot",
]

WIDE, NARROW, HALF = (
    9.6,
    4.0,
    4.4,
)  # inches; the page shows a wide chart 980 pixels wide, a narrow one about 380
NARROW_TITLE, SHORT = 48, 26  # characters: above a chart of NARROW inches, and beside others in it
DOTS = 70  # up to so many values the truth has dots
DOTTED = (0, (2, 3))
DASHED = (0, (3, 2))
LEAST_STEPS = 40  # of the past beside a forecast


@dataclass(frozen=True, eq=False)
class Row:
    """A covariate beside a series: name, times (T,), values (T,)."""

    name: str
    times: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Ahead:
    """One series and its forecast: name, times (T,), y (T,), future (H,), forecast (H, Q), rows: its covariates."""

    name: str
    times: np.ndarray
    y: np.ndarray
    future: np.ndarray
    forecast: np.ndarray
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Shown:
    """A window of a backtest to be drawn: indices of its series and its cutoff, and what it is called."""

    series: int
    cutoff: int
    title: str


def ahead_plot(
    ahead: Ahead, quantiles: Sequence[float], levels: Sequence[int], model: str, narrow: bool = False
) -> str:
    """The end of a series and the forecast that follows it, its covariates below."""
    size = 2 if narrow else 3
    begin = len(ahead.y) - min(len(ahead.y), max(size * len(ahead.future), LEAST_STEPS))

    def draw(axes: Any) -> None:
        axes.plot(
            ahead.times[begin:], ahead.y[begin:], color=INK, linewidth=1.2, label=_label(ahead.name, narrow)
        )
        fan(axes, ahead.future, ahead.forecast, quantiles, levels, _label(model, narrow))
        axes.axvline(ahead.times[-1], color=FAINT, linewidth=0.8, linestyle=DOTTED)
        date_axis(axes, ahead.times, most=5 if narrow else 10)
        legend(axes, 2 if narrow else 5)

    def strip(row: Row) -> Callable[[Any], None]:
        def draw_row(axes: Any) -> None:
            axes.step(row.times[begin:], row.values[begin:], where="mid", color=FAINT, linewidth=1.1)
            axes.axvline(ahead.times[-1], color=FAINT, linewidth=0.8, linestyle=DOTTED)
            axes.set_title(_label(row.name, narrow, NARROW_TITLE), fontsize=9, pad=3)
            is_flag = np.isin(row.values[~np.isnan(row.values)], (0.0, 1.0)).all()
            axes.set_yticks([0, 1]) if is_flag else axes.locator_params(axis="y", nbins=3)
            date_axis(axes, ahead.times, most=5 if narrow else 10)

        return draw_row

    heights = (3.1, *(0.7 for _ in ahead.rows))
    draws = [draw, *(strip(row) for row in ahead.rows)]
    return stacked(draws, heights, NARROW if narrow else WIDE, _salt("ahead", narrow))


def grid_plot(
    panels: Sequence[Ahead],
    quantiles: Sequence[float],
    levels: Sequence[int],
    model: str,
    backtest: Backtest | None,
    narrow: bool = False,
) -> str:
    """Several series: the end of each, its last backtest window where there is one, and the forecast that
    follows."""

    def drawing(ahead: Ahead) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            begin = len(ahead.y) - min(len(ahead.y), max(3 * len(ahead.future), LEAST_STEPS))
            window = None if backtest is None else _last_window(backtest, ahead.name)
            known = len(ahead.y) if window is None else backtest.cutoffs[window]  # type: ignore[union-attr]
            axes.plot(ahead.times[begin:known], ahead.y[begin:known], color=INK, linewidth=1.1, zorder=3)
            fan(axes, ahead.future, ahead.forecast, quantiles, levels, model)
            if backtest is not None and window is not None:
                own = backtest.forecasts[backtest.model][window]
                fan(axes, backtest.times(*window), own, backtest.quantiles, backtest.levels, None)
                _truth(axes, ahead.times[known:], ahead.y[known:])
            axes.axvline(ahead.times[-1], color=FAINT, linewidth=0.8, linestyle=DOTTED)
            axes.set_title(_label(ahead.name, narrow, NARROW_TITLE), fontsize=9)
            date_axis(axes, ahead.times, most=5)

        return draw

    columns = 1 if narrow else 2
    height = (2.0 if narrow else 2.2) * math.ceil(len(panels) / columns)
    draws = [drawing(ahead) for ahead in panels]
    return charts(draws, columns, NARROW if narrow else WIDE, height, _salt("grid", narrow))


def windows_plot(
    backtest: Backtest, windows: Sequence[Shown], rival: str | None, narrow: bool = False
) -> str:
    """Windows of a backtest, each with what was known before it: what was forecast, what came, what the best of the
    simple methods said."""

    def drawing(window: Shown) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            _one_window(axes, backtest, window, rival, narrow)
            axes.set_title(_label(window.title, narrow, NARROW_TITLE), fontsize=9)
            date_axis(axes, backtest.times(window.series, window.cutoff), most=5)

        return draw

    columns = 1 if narrow or len(windows) == 1 else 2
    height = (2.3 if narrow else 2.4) * math.ceil(len(windows) / columns)
    draws = [drawing(window) for window in windows]
    width = NARROW if narrow else WIDE
    return charts(draws, columns, width, height, _salt("backtest", narrow), legend_columns=2 if narrow else 6)


def error_plot(by_horizon: Mapping[str, np.ndarray], metric: str, step: str, rival: str | None) -> str:
    """An error by step of the horizon, for each model: the first is the own one, `rival` the best of the others."""

    def draw(axes: Any) -> None:
        for name, values in by_horizon.items():
            steps = np.arange(1, len(values) + 1)
            style = _style(by_horizon, name, rival)
            if len(values) <= 31 and name in (next(iter(by_horizon)), rival):
                style |= {"marker": "o", "markersize": 3}
            axes.plot(steps, values, **style)
        axes.set_ylim(bottom=0)
        _step_axis(axes, step)
        axes.set_ylabel(metric)
        legend(axes, 2)

    return chart(draw, HALF, 3.0, "error")


def cutoff_plot(backtest: Backtest, series: int, rival: str | None) -> str:
    """The error of each window of one series by its cutoff: whether the model is better at all times."""

    def draw(axes: Any) -> None:
        shown = np.flatnonzero(backtest.cutoffs[series] >= 0)
        times = np.array([backtest.panel.times[series][backtest.cutoffs[series, c] - 1] for c in shown])
        for name, forecast in backtest.forecasts.items():
            if name in (backtest.model, rival):
                point = _median(forecast[series, shown], backtest.quantiles)
                errors = mean(np.abs(backtest.y[series, shown] - point), axis=1)
                style = _style(backtest.forecasts, name, rival)
                axes.plot(times, errors, marker="o", markersize=3, **style)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("MAE")
        date_axis(axes, times, most=5)
        legend(axes, 2)

    return chart(draw, HALF, 3.0, "cutoff")


def coverage_plot(by_horizon: Mapping[str, np.ndarray], levels: Sequence[int], step: str) -> str:
    """The share of truths inside each band by step of the horizon, against what was promised (dotted)."""

    def draw(axes: Any) -> None:
        for level, colour in zip(sorted(levels), (MODEL, GOOD, BASELINE, INK) * len(levels), strict=False):
            values = by_horizon[f"coverage {level}"]
            steps = np.arange(1, len(values) + 1)
            axes.axhline(level, color=colour, linewidth=1, linestyle=(0, (1, 2)))
            marker = "o" if len(values) == 1 else None
            axes.plot(steps, values, color=colour, linewidth=1.6, marker=marker, label=f"{level} % band")
        axes.set_ylim(0, 102)
        _step_axis(axes, step)
        axes.set_ylabel("inside the band, %")
        legend(axes, 3)

    return chart(draw, HALF, 3.0, "coverage")


def series_plot(own: np.ndarray, other: np.ndarray, model: str, rival: str) -> str:
    """Each series as a dot: MASE of a simple method (across) against that of the model (up); below the line is
    better."""

    def draw(axes: Any) -> None:
        top = float(np.nanmax(np.concatenate([own, other]))) * 1.05
        axes.plot([0, top], [0, top], color=FAINT, linewidth=1, linestyle=DOTTED)
        size = 36 if len(own) <= 20 else 16 if len(own) <= 200 else 7
        axes.scatter(other, own, s=size, color=MODEL, alpha=0.55, linewidths=0)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel(f"MASE of {chart_label(rival, SHORT)}")
        axes.set_ylabel(f"MASE of {chart_label(model, SHORT)}")

    return chart(draw, HALF, 3.0, "series")


# --- parts of charts ---------------------------------------------------------------------------------------------


def _label(name: str, narrow: bool, longest: int = SHORT) -> str:
    return chart_label(name, longest) if narrow else chart_label(name)


def _salt(name: str, narrow: bool) -> str:
    return f"{name}-narrow" if narrow else name


def _style(models: Mapping[str, Any], name: str, rival: str | None) -> dict[str, Any]:
    """How the line of a model looks: the own one, the best of the simple methods, and the others."""
    if name == next(iter(models)):
        return {"color": MODEL, "linewidth": 1.6, "label": chart_label(name, SHORT), "zorder": 3}
    if name == rival:
        return {"color": BASELINE, "linewidth": 1.4, "linestyle": DASHED, "label": chart_label(name, SHORT)}
    return {"color": FAINT, "linewidth": 0.8, "linestyle": DOTTED, "label": chart_label(name, SHORT)}


def _one_window(axes: Any, backtest: Backtest, window: Shown, rival: str | None, narrow: bool) -> None:
    series, cutoff = window.series, window.cutoff
    end = int(backtest.cutoffs[series, cutoff])
    begin = max(0, end - max(backtest.horizon, 12))
    times, y = backtest.panel.times[series], backtest.panel.y[series]
    axes.plot(times[begin:end], y[begin:end], color=INK, linewidth=1.1, label="known")
    future = backtest.times(series, cutoff)
    if rival is not None:
        point = _median(backtest.forecasts[rival][series, cutoff], backtest.quantiles)
        axes.plot(future, point, color=BASELINE, linewidth=1, linestyle=DASHED, label=_label(rival, narrow))
    own = backtest.forecasts[backtest.model][series, cutoff]
    fan(axes, future, own, backtest.quantiles, backtest.levels, _label(backtest.model, narrow))
    _truth(axes, future, backtest.y[series, cutoff])
    axes.axvline(_before(future), color=FAINT, linewidth=0.8, linestyle=DOTTED)


def _truth(axes: Any, times: np.ndarray, y: np.ndarray) -> None:
    """What came, over a forecast of it: dots on a hairline, so that both are seen."""
    dots = {"marker": "o", "markersize": 2.4} if len(y) <= DOTS else {}
    axes.plot(times[: len(y)], y, color=INK, linewidth=0.6, zorder=5, label="what came", **dots)


def fan(
    axes: Any,
    times: np.ndarray,
    forecast: np.ndarray,
    quantiles: Sequence[float],
    levels: Sequence[int],
    name: str | None,
) -> None:
    """Bands from the widest in, then the median, under a label that a chart can hold."""
    quantiles = list(quantiles)
    for depth, level in enumerate(sorted(levels, reverse=True)):
        low, high = (forecast[:, quantiles.index(q)] for q in band_quantiles(level))
        label, alpha = None if name is None else f"{level} % band", min(0.15 + 0.1 * depth, 0.5)
        if len(times) == 1:  # one step has no area
            axes.plot([times[0]] * 2, [low[0], high[0]], color=MODEL, alpha=alpha, linewidth=6, label=label)
        else:
            axes.fill_between(times, low, high, color=MODEL, alpha=alpha, linewidth=0, label=label)
    marker = {"marker": "o", "markersize": 4} if len(times) == 1 else {}
    axes.plot(times, _median(forecast, quantiles), color=MODEL, linewidth=1.5, label=name, **marker)


def _last_window(backtest: Backtest, name: str) -> tuple[int, int] | None:
    series = backtest.panel.ids.index(name)
    last = backtest.cutoffs.shape[1] - 1
    return None if backtest.cutoffs[series, last] < 0 else (series, last)


def _median(forecast: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    return np.asarray(forecast[..., list(quantiles).index(0.5)])


def _before(future: np.ndarray) -> Any:
    """Half a step before the first forecast."""
    return future[0] - (future[1] - future[0]) / 2 if len(future) > 1 else future[0]


def _step_axis(axes: Any, step: str) -> None:
    axes.set_xlabel(f"{step}s ahead" if " " not in step else f"steps of {step} ahead")
    whole_numbers(axes)
    axes.set_xlim(left=0.5)
    thousands(axes)
