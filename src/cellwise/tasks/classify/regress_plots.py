"""The charts of a regressor's report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cellwise.tasks.report.charts import BASELINE, FAINT, MODEL, chart, chart_label, legend, thousands

if TYPE_CHECKING:
    from cellwise.tasks.classify.regress_report import MeasuredNumbers

__all__ = ["error_plot", "scatter_plot", "sure_plot"]

MOST_DOTS = 1000
STYLES: tuple[dict[str, Any], ...] = (
    {"color": MODEL, "linestyle": "-"},
    {"color": BASELINE, "linestyle": (0, (3, 2))},
    {"color": FAINT, "linestyle": (0, (1, 2))},
)


def scatter_plot(found: MeasuredNumbers) -> str:
    """Predicted against true numbers, of at most a thousand sequences."""
    name, own = next(iter(found.said.items()))
    rows = np.random.default_rng(0).permutation(len(own))[:MOST_DOTS]

    def draw(axes: Any) -> None:
        ends = [min(found.truth.min(), own.min()), max(found.truth.max(), own.max())]
        axes.plot(ends, ends, color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        axes.scatter(found.truth[rows], own[rows], s=9, color=MODEL, alpha=0.45, linewidths=0)
        axes.set_xlabel("true")
        axes.set_ylabel(f"said by {chart_label(name)}")
        thousands(axes)

    return chart(draw, 4.7, 4.2, "predicted")


def error_plot(found: MeasuredNumbers, values: np.ndarray, label: str, salt: str) -> str:
    """The mean absolute error of each model by fifths of some value (N,) of the sequences."""
    groups = fifths(values)

    def draw(axes: Any) -> None:
        middle = [float(np.median(values[rows])) for rows in groups]
        for (name, said), style in zip(found.said.items(), _styles(found), strict=True):
            errors = [float(np.abs(said - found.truth)[rows].mean()) for rows in groups]
            axes.plot(
                middle, errors, marker="o", markersize=3.5, linewidth=1.6, label=chart_label(name), **style
            )
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_ylabel("mean absolute error")
        thousands(axes)
        legend(axes, 2)

    return chart(draw, 4.7, 3.4, salt)


def sure_plot(found: MeasuredNumbers) -> str:
    """The share of sequences whose error is at most so large, and the margin of the intervals."""

    def draw(axes: Any) -> None:
        share = np.arange(1, len(found.truth) + 1) / len(found.truth)
        at = np.unique(np.linspace(0, len(share) - 1, 200).astype(int))
        for (name, said), style in zip(found.said.items(), _styles(found), strict=True):
            errors = np.sort(np.abs(said - found.truth))
            axes.plot(errors[at], share[at], linewidth=1.6, label=chart_label(name), **style)
        axes.axvline(found.margin, color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("absolute error")
        axes.set_ylabel("share of sequences")
        legend(axes, 2)

    return chart(draw, 4.7, 3.4, "errors")


def fifths(values: np.ndarray) -> list[np.ndarray]:
    """The rows of up to five groups of like values, the smallest first, none empty; equal values stay together.

    >>> [rows.tolist() for rows in fifths(np.array([3.0, 1.0, 2.0, 1.0]))]
    [[1, 3], [2], [0]]
    """
    edges = np.unique(np.quantile(values, [0.2, 0.4, 0.6, 0.8]))
    group = np.searchsorted(edges, values, side="left")
    return [rows for each in range(len(edges) + 1) if len(rows := np.flatnonzero(group == each))]


def _styles(found: MeasuredNumbers) -> tuple[dict[str, Any], ...]:
    """The network's, the linear model's where there is one, that of the mean."""
    return STYLES if len(found.said) == len(STYLES) else (STYLES[0], STYLES[-1])
