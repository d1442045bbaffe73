"""The pictures of the report, as SVG that takes its colours from the page and needs no fonts or files of
its own. Longer than other files: eight pictures share one frame."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellwise.tasks.data.optional import need
from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.metrics import band_quantiles, mean
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.shown import shown
from cellwise.tasks.training.history import History

__all__ = [
    "Ahead",
    "ahead_plot",
    "backtest_plot",
    "coverage_plot",
    "cutoff_plot",
    "error_plot",
    "grid_plot",
    "loss_plot",
    "page_svg",
]

LONGEST_NAME = 60  # characters

# colour on paper -> custom property of the page, which has another value in the dark
INK, FAINT, GRID, MODEL, NAIVE, GOOD = "#1f2933", "#64707d", "#dfe3e8", "#2457d6", "#c2570c", "#0f8a5f"
VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--grid",
    MODEL: "--model",
    NAIVE: "--naive",
    GOOD: "--good",
}
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "svg.fonttype": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    # Names are anybody's text: no "$" in one is mathematics, and none is handed to LaTeX.
    "text.parse_math": False,
    "text.usetex": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.solid_capstyle": "round",
}


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
        axes.plot(ahead.times[-shown:], ahead.y[-shown:], color=INK, linewidth=1.2, label=_label(target))
        _fan(axes, ahead.future, ahead.forecast, quantiles, levels, model)
        axes.axvline(ahead.times[-1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        _date_axis(axes, ahead.times)
        _legend(axes)

    return _figure(draw, 9.6, 3.3, "ahead")


def backtest_plot(backtest: Backtest, series: int, target: str, windows: int = 4) -> str:
    """The last windows of a backtest: what happened, what was forecast, what the seasonal naive said."""
    cutoffs = _apart(backtest.ends[series], backtest.horizon)[-windows:]

    def draw(axes: Any) -> None:
        first, last = backtest.ends[series, cutoffs[0]], backtest.ends[series, cutoffs[-1]] + backtest.horizon
        begin = max(0, first - backtest.horizon)
        times, y = backtest.panel.times[series][begin:last], backtest.panel.y[series][begin:last]
        axes.plot(times, y, color=INK, linewidth=1.1, label=_label(target), zorder=3)
        for k, c in enumerate(cutoffs):
            future = backtest.times(series, c)
            naive = _median(backtest.forecasts[NAIVE_NAME][series, c], backtest.quantiles)
            axes.plot(
                future,
                naive,
                color=NAIVE,
                linewidth=1,
                linestyle=(0, (3, 2)),
                label="seasonal naive" if k == 0 else None,
            )
            own = backtest.forecasts[backtest.model][series, c]
            _fan(axes, future, own, backtest.quantiles, backtest.levels, backtest.model if k == 0 else None)
            axes.axvline(_before(future), color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
        _date_axis(axes, times)
        _legend(axes)

    return _figure(draw, 9.6, 3.6, "backtest")


def grid_plot(
    panels: Sequence[Ahead],
    quantiles: Sequence[float],
    levels: Sequence[int],
    model: str,
    backtest: Backtest | None,
) -> str:
    """Several series: the end of each, its last backtest window where there is one, and the forecast that
    follows."""
    figure_module, matplotlib = need("matplotlib.figure"), need("matplotlib")
    columns = 2
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE):
        figure = figure_module.Figure(figsize=(9.6, 2.3 * rows), layout="constrained")
        for place, ahead in enumerate(panels):
            axes = figure.add_subplot(rows, columns, place + 1)
            shown = min(len(ahead.y), max(3 * len(ahead.future), 40))
            axes.plot(ahead.times[-shown:], ahead.y[-shown:], color=INK, linewidth=1.1)
            _fan(axes, ahead.future, ahead.forecast, quantiles, levels, model)
            if backtest is not None:
                _last_window(axes, backtest, ahead.name)
            axes.axvline(ahead.times[-1], color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)))
            axes.set_title(_label(ahead.name))
            _date_axis(axes, ahead.times, most=5)
        return _svg(figure, "grid")


def error_plot(by_horizon: dict[str, np.ndarray], metric: str, step: str) -> str:
    """An error by step of the horizon, for each model."""

    def draw(axes: Any) -> None:
        for name, values in by_horizon.items():
            own = name != NAIVE_NAME
            steps = np.arange(1, len(values) + 1)
            label = _label(name) if own else "seasonal naive"
            style = {"linestyle": "-" if own else (0, (3, 2)), "marker": "o" if len(values) <= 31 else None}
            axes.plot(
                steps,
                values,
                color=MODEL if own else NAIVE,
                linewidth=1.6,
                markersize=3,
                label=label,
                **style,
            )
        axes.set_ylim(bottom=0)
        _step_axis(axes, step)
        axes.set_ylabel(metric)
        _legend(axes)

    return _figure(draw, 4.7, 3.0, "error")


def cutoff_plot(backtest: Backtest, series: int) -> str:
    """The error of each window of one series by its cutoff: whether the model is better at all times."""

    def draw(axes: Any) -> None:
        shown = np.flatnonzero(backtest.ends[series] >= 0)
        times = np.array([backtest.panel.times[series][backtest.ends[series, c] - 1] for c in shown])
        for name, forecast in backtest.forecasts.items():
            own = name != NAIVE_NAME
            point = forecast[series, shown, :, list(backtest.quantiles).index(0.5)]
            errors = mean(np.abs(backtest.y[series, shown] - point), axis=1)
            style = {"color": MODEL, "linestyle": "-"} if own else {"color": NAIVE, "linestyle": (0, (3, 2))}
            label = _label(name) if own else "seasonal naive"
            axes.plot(times, errors, linewidth=1.6, marker="o", markersize=3, label=label, **style)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("MAE")
        _date_axis(axes, times, most=6)
        _legend(axes)

    return _figure(draw, 4.7, 3.0, "cutoff")


def coverage_plot(by_horizon: dict[str, np.ndarray], levels: Sequence[int], step: str) -> str:
    """The share of truths inside each band by step of the horizon, against what was promised (dotted)."""

    def draw(axes: Any) -> None:
        for level, colour in zip(sorted(levels), (MODEL, GOOD, NAIVE, INK) * len(levels), strict=False):
            values = by_horizon[f"coverage {level}"]
            axes.axhline(level, color=colour, linewidth=1, linestyle=(0, (1, 2)))
            axes.plot(
                np.arange(1, len(values) + 1), values, color=colour, linewidth=1.6, label=f"{level} % band"
            )
        axes.set_ylim(0, 102)
        _step_axis(axes, step)
        axes.set_ylabel("inside the band, %")
        axes.legend(loc="lower left", ncols=2)

    return _figure(draw, 4.7, 3.0, "coverage")


def loss_plot(history: History) -> str:
    """Training loss and the watched metric by epoch; a ring marks the weights that were kept."""
    epochs, metric = history.epochs, history.watch.metric

    def draw(axes: Any) -> None:
        numbers = [epoch.epoch for epoch in epochs]
        axes.plot(
            numbers, [epoch.loss for epoch in epochs], color=FAINT, linewidth=1.4, label="training loss"
        )
        best, kept = history.best, history.best.loss
        if epochs[0].metrics:
            values = [epoch.metrics[metric] for epoch in epochs]
            axes.plot(numbers, values, color=MODEL, linewidth=1.6, label=metric.replace("_", " "))
            kept = best.metrics[metric]
        axes.plot([best.epoch], [kept], "o", markersize=8, markerfacecolor="none", color=MODEL, label="kept")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(need("matplotlib.ticker").MaxNLocator(integer=True))
        _legend(axes)

    return _figure(draw, 4.7, 3.0, "loss")


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
        axes.set_ylabel(f"MASE of {_label(model)}")

    return _figure(draw, 4.7, 3.0, "series")


def page_svg(svg: str) -> str:
    """A plot for inside the page: colours follow the page, no addresses, no fixed size."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)

    def dress(tag: str) -> str:
        for colour, variable in VARIABLES.items():
            tag = tag.replace(colour, f"var({variable})")
        tag = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", tag)
        if tag.startswith("<svg"):
            tag = re.sub(r'\s(width|height)="[^"]*"', "", tag)
        return tag.replace("'DejaVu Sans'", "system-ui, sans-serif")

    return _in_tags(svg, dress).strip()


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    """Change the tags only: what stands between them is text, and a person's own. (Within tags ">" is escaped.)"""
    return re.sub(r"<[^>]*>", lambda found: change(found[0]), svg)


def _label(name: str) -> str:
    """A name as a picture can hold it."""
    text = shown(name, LONGEST_NAME)
    # matplotlib leaves what begins with "_" out of legends; a space without width before it is not seen.
    return f"\u200b{text}" if text.startswith("_") else text


def _figure(draw: Callable[[Any], None], width: float, height: float, salt: str) -> str:
    figure_module, matplotlib = need("matplotlib.figure"), need("matplotlib")
    with matplotlib.rc_context(STYLE):
        figure = figure_module.Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        return _svg(figure, salt)


def _svg(figure: Any, salt: str) -> str:
    """The figure as text; equal figures give equal text. The salt keeps the names inside apart on one
    page."""
    matplotlib = need("matplotlib")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        # The text is drawn by whoever shows the page, with fonts of their own.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    # the same names come in every figure, and a page holds several
    pattern = r'((?<![\w-])id="|href="#|url\(#)'
    return _in_tags(buffer.getvalue(), lambda tag: re.sub(pattern, rf"\1{salt}-", tag))


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
        label=None if name is None else _label(name),
    )


def _last_window(axes: Any, backtest: Backtest, name: str) -> None:
    series = backtest.panel.ids.index(name)
    if backtest.ends[series, -1] < 0:
        return
    future = backtest.times(series, backtest.ends.shape[1] - 1)
    own = backtest.forecasts[backtest.model][series, -1]
    _fan(axes, future, own, backtest.quantiles, backtest.levels, None)


def _apart(ends: np.ndarray, horizon: int) -> list[int]:
    """Cutoffs whose windows do not overlap, counted back from the last; oldest first."""
    chosen: list[int] = []
    for c in range(len(ends) - 1, -1, -1):
        if ends[c] >= 0 and (not chosen or ends[c] + horizon <= ends[chosen[-1]]):
            chosen.append(c)
    return chosen[::-1]


def _median(forecast: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    return forecast[:, list(quantiles).index(0.5)]


def _before(future: np.ndarray) -> Any:
    """Half a step before the first forecast."""
    return future[0] - (future[1] - future[0]) / 2 if len(future) > 1 else future[0]


def _date_axis(axes: Any, times: np.ndarray, most: int = 10) -> None:
    axes.margins(x=0.01)
    if times.dtype.kind == "M":
        dates = need("matplotlib.dates")
        # hours come in steps of at most 12, so a few days need more ticks than the other units
        ticks = dict.fromkeys(
            (dates.YEARLY, dates.MONTHLY, dates.DAILY, dates.MINUTELY, dates.SECONDLY), most
        )
        locator = dates.AutoDateLocator(minticks=3, maxticks={**ticks, dates.HOURLY: max(most, 9)})
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    _thousands(axes)


def _step_axis(axes: Any, step: str) -> None:
    axes.set_xlabel(f"{step}s ahead" if " " not in step else f"steps of {step} ahead")
    axes.xaxis.set_major_locator(need("matplotlib.ticker").MaxNLocator(integer=True))
    axes.set_xlim(left=0.5)
    _thousands(axes)


def _thousands(axes: Any) -> None:
    low, high = axes.get_ylim()
    if max(abs(low), abs(high)) >= 2000:
        axes.yaxis.set_major_formatter(need("matplotlib.ticker").StrMethodFormatter("{x:,.0f}"))


def _legend(axes: Any) -> None:
    """Above the axes, so that it never covers a line."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=5,
        borderaxespad=0.2,
        handlelength=1.6,
        columnspacing=1.4,
    )
