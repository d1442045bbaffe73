"""The charts of a classifier's report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cellwise.tasks.classify.metrics import reliability
from cellwise.tasks.report.charts import (
    BASELINE,
    FAINT,
    INK,
    MODEL,
    chart,
    chart_label,
    charts,
    legend,
    whole_numbers,
)
from cellwise.tasks.training.history import History

__all__ = ["accuracy_plot", "confusion_plot", "mistakes_plot", "reliability_plot"]

MOST_NUMBERED = 16  # classes whose counts are written into the matrix
MOST_COLUMNS = 800  # of one series; more steps than this share some
LINE, WIDE = 0.9, 300  # points; steps up to which a line is that wide
MOST_CHANNELS = 6


def confusion_plot(table: np.ndarray, names: Sequence[str]) -> str:
    """Rows: the true class; columns: what was said. The colour is the share of the row."""
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    labels = [_short(name) for name in names]

    def draw(axes: Any) -> None:
        count = len(names)
        for row in range(count):
            for column in range(count):
                if not table[row, column]:
                    continue
                colour = MODEL if row == column else BASELINE
                axes.fill_between(
                    [column - 0.5, column + 0.5],
                    row - 0.5,
                    row + 0.5,
                    color=colour,
                    alpha=0.12 + 0.68 * share[row, column],
                    linewidth=0,
                )
                if count <= MOST_NUMBERED:
                    axes.text(column, row, f"{table[row, column]:,}", ha="center", va="center", fontsize=8.5)
        axes.set_xlim(-0.5, count - 0.5)
        axes.set_ylim(count - 0.5, -0.5)
        if count <= 2 * MOST_NUMBERED:
            turned = max(map(len, labels)) * count > 50
            axes.set_xticks(range(count), labels, rotation=90 if turned else 0, fontsize=8.5)
            axes.set_yticks(range(count), labels, fontsize=8.5)
        axes.set_xlabel("said")
        axes.set_ylabel("true")
        axes.grid(False)
        axes.set_aspect("equal")

    return chart(draw, 4.7, 4.2, "confusion")


def reliability_plot(chances: dict[str, np.ndarray], labels: np.ndarray) -> str:
    """The share of right answers by confidence, for each model; on the dotted line confidence is what it says."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
        for number, (name, each) in enumerate(chances.items()):
            mean, share, count = reliability(each, labels)
            colour = MODEL if number == 0 else BASELINE
            style = "-" if number == 0 else (0, (3, 2))
            axes.plot(mean, share, color=colour, linewidth=1.6, linestyle=style, label=chart_label(name))
            axes.scatter(mean, share, s=8 + 90 * count / count.sum(), color=colour, linewidths=0)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence: probability of the class that is said")
        axes.set_ylabel("share that is right")
        legend(axes)

    return chart(draw, 4.7, 4.2, "reliability")


def accuracy_plot(history: History, kept: int) -> str:
    """The share of right answers on what was held out, by epoch."""

    def draw(axes: Any) -> None:
        numbers = [epoch.epoch for epoch in history.epochs]
        values = [epoch.metrics["accuracy"] for epoch in history.epochs]
        axes.plot(numbers, values, color=MODEL, linewidth=1.6, label="accuracy, held out")
        axes.plot(
            [kept],
            [values[numbers.index(kept)]],
            "o",
            markersize=8,
            markerfacecolor="none",
            color=MODEL,
            label="kept",
        )
        axes.set_ylim(min(values) - 0.02, 1.005)
        axes.set_xlabel("epoch")
        whole_numbers(axes)
        legend(axes)

    return chart(draw, 4.7, 3.0, "accuracy")


def mistakes_plot(series: Sequence[np.ndarray], shares: Sequence[np.ndarray], titles: Sequence[str]) -> str:
    """Series (T, D) in units of their spread, and under them how much each step (T,) spoke for what was said.

    Of a series of more steps than a picture has columns, the least and the largest value of each column are joined,
    and what its steps spoke is added up."""

    def drawing(values: np.ndarray, share: np.ndarray, title: str) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            variety = values.var(axis=0)
            shown = np.sort(np.argsort(-variety, kind="stable")[:MOST_CHANNELS])
            begins = np.unique(np.linspace(0, len(values), MOST_COLUMNS, endpoint=False).astype(int))
            width = LINE * min(1.0, WIDE / len(begins))  # else swings of many steps are one block of ink
            steps, lines = _outlined(values[:, shown], begins)
            for place, line in enumerate(lines.T):
                axes.plot(steps, line, color=INK, linewidth=width, alpha=1 - 0.12 * place)
            low, high = axes.get_ylim()
            spoken = [np.add.reduceat(np.maximum(sign * share, 0), begins) for sign in (1, -1)]
            height, top = 0.22 * (high - low), max(float(np.max(spoken)), 1e-9)
            edges = np.r_[begins, len(values)] - 0.5
            for found, colour in zip(spoken, (MODEL, BASELINE), strict=True):
                axes.stairs(
                    found / top * height + low - height, edges, baseline=low - height, fill=True, color=colour
                )
            axes.set_ylim(low - height, high)
            axes.set_title(chart_label(title))
            whole_numbers(axes)

        return draw

    draws = [drawing(*each) for each in zip(series, shares, titles, strict=True)]
    rows = -(-len(draws) // 2)
    return charts(draws, 2, 9.6, 2.3 * rows, "mistakes")


def _outlined(values: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps (N,) and values (N, D) of a line through the least and the largest value between each begin and the next;
    through all of them where each is alone."""
    if len(begins) == len(values):
        return begins, values
    ends = np.minimum.reduceat(values, begins), np.maximum.reduceat(values, begins)
    return np.repeat(begins, 2), np.stack(ends, axis=1).reshape(-1, values.shape[1])


def _short(name: str) -> str:
    label = chart_label(name)
    return label if len(label) <= 14 else label[:13] + "…"
