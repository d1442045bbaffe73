"""The charts of what a forecast looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cellwise.tasks.forecasting.influence import Growth, Lags
from cellwise.tasks.forecasting.metrics import band_quantiles
from cellwise.tasks.forecasting.plots import DOTTED, HALF, NARROW, SHORT, WIDE
from cellwise.tasks.forecasting.what_if import WhatIf
from cellwise.tasks.report.charts import (
    BASELINE,
    FAINT,
    INK,
    LONGEST_NAME,
    MODEL,
    chart,
    chart_label,
    date_axis,
    legend,
)

__all__ = ["growth_plot", "lags_plot", "shares_plot", "what_if_plot"]

MOST_BARS = 12


def growth_plot(found: Sequence[Growth]) -> str:
    """How much the error grows without each covariate, the most on top; lines reach from the least to the most of the
    shifts."""
    shown = found[:MOST_BARS]

    def draw(axes: Any) -> None:
        values = np.array([each.percent for each in shown])
        _bars(axes, [each.group.name for each in shown], values)
        rows = np.arange(len(shown))
        axes.hlines(rows, [e.least for e in shown], [e.most for e in shown], color=INK, linewidth=0.9)
        axes.set_xlabel("the error grows by, %")

    return _bar_chart(draw, len(shown), "growth")


def shares_plot(names: Sequence[str], shares: np.ndarray) -> str:
    """The share of each part in what is added to the level, the largest on top."""
    order = np.argsort(-shares)[:MOST_BARS]

    def draw(axes: Any) -> None:
        _bars(axes, [names[i] for i in order], shares[order])
        axes.set_xlabel("share, %")

    return _bar_chart(draw, len(order), "shares")


def lags_plot(found: Sequence[Lags], many: str) -> str:
    """How far the forecast moves without a value of each block of the past, the newest on top. many: the unit, such as
    "days"."""

    def draw(axes: Any) -> None:
        names = [f"{e.first}" if e.first == e.last else f"{e.first} to {e.last}" for e in found]
        values = np.array([each.moved / (each.last - each.first + 1) for each in found])
        _bars(axes, ["the newest", *names[1:]], values)
        axes.set_ylabel(f"{many} back")
        axes.set_xlabel("the forecast moves by, % of its error, a value")

    return _bar_chart(draw, len(found), "lags")


def what_if_plot(
    found: WhatIf, times: np.ndarray, y: np.ndarray, future: np.ndarray, name: str, narrow: bool = False
) -> str:
    """The forecast of the first series as it is, with its widest band, and with the changed covariates.

    times, y (T,): the past of the series; future (H,)."""
    begin = len(y) - min(len(y), max(len(future), 20))
    low, high = band_quantiles(max(found.levels))
    index, longest = list(found.quantiles).index, SHORT if narrow else LONGEST_NAME

    def draw(axes: Any) -> None:
        axes.plot(times[begin:], y[begin:], color=INK, linewidth=1.1, label=chart_label(name, longest))
        before, after = found.before[0], found.after[0]
        band = before[:, index(low)], before[:, index(high)]
        axes.fill_between(future, *band, color=MODEL, alpha=0.14, linewidth=0)
        axes.plot(future, before[:, index(0.5)], color=MODEL, linewidth=1.5, label="as given")
        axes.plot(
            future,
            after[:, index(0.5)],
            color=BASELINE,
            linewidth=1.5,
            label=chart_label(found.words, longest),
        )
        axes.axvline(times[-1], color=FAINT, linewidth=0.8, linestyle=DOTTED)
        date_axis(axes, times, most=5 if narrow else 10)
        legend(axes, 2 if narrow else 5)

    return chart(draw, NARROW if narrow else WIDE, 2.6, "what-if-narrow" if narrow else "what-if")


def _bar_chart(draw: Any, count: int, salt: str) -> str:
    return chart(draw, HALF, 0.9 + 0.32 * count, salt)


def _bars(axes: Any, names: Sequence[str], values: np.ndarray) -> None:
    axes.barh(np.arange(len(values)), values, color=MODEL, height=0.62)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_yticks(np.arange(len(values)), [chart_label(name, SHORT) for name in names])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
