"""The picture of a comparison: a row for each cell, a panel for each problem."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from cellwise.experiments.bakeoff.problems import PROBLEMS
from cellwise.experiments.bakeoff.ranking import Standing, Table
from cellwise.understand.figures import INK, MUTED, in_style, new_figure, plain

__all__ = ["MARKED", "draw_bakeoff"]

DOT, FAMILIAR, FAILED = "#14367f", "#9c2c13", "#9c2c13"
MARKED = ("rnn", "lstm", "gru")  # those that everyone knows, to find one's way by
ROW, PANEL = 0.17, 1.9  # inches
LETTERS = 14  # of the legend in an inch
LEGEND = (
    "● mean of the seeds, from the best to the worst;  ▸ worse than the axis goes;  × diverged;  dashed: a simple "
    "method;  beside the names: mean rank. Left is better."
)


def draw_bakeoff(table: Table) -> Any:
    """A matplotlib figure: cells from the best mean rank down, a dot where the mean of the seeds is.

    A bar goes from the best seed to the worst, a cross stands for trainings that diverged, the dashed line is the
    simple method. To the left is better everywhere.

    Raises:
        FigureError: matplotlib is not installed.
    """
    with in_style():
        return _draw(table)


def _draw(table: Table) -> Any:
    rows = len(table.standings)
    size = (PANEL * len(table.problems) + 1.5, ROW * rows + 1.4)
    figure, axes = new_figure(1, len(table.problems), size, sharey=True)
    for panel, name in zip(axes[0], table.problems, strict=True):
        _panel(panel, table, name)
    labels = [f"{plain(each.cell)}  {each.mean_rank:.1f}" for each in table.standings]
    axes[0][0].set_yticks(range(rows), labels, fontsize=7.5, color=INK)
    for label, standing in zip(axes[0][0].get_yticklabels(), table.standings, strict=True):
        if standing.cell in MARKED:
            label.set(color=FAMILIAR, fontweight="bold")
    axes[0][0].set_ylim(rows - 0.4, -0.6)
    figure.suptitle(fill(LEGEND, round(LETTERS * size[0])), x=0.01, ha="left", fontsize=8, color=MUTED)
    return figure


def _panel(axes: Any, table: Table, name: str) -> None:
    problem = PROBLEMS[name]
    axes.set_title(name)
    axes.set_xlabel(f"{problem.sign}\ndashed: {problem.simple}", fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines["left"].set_visible(False)
    simple = problem.simple_score()
    axes.axvline(simple, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)))
    best, most = _range(table, name, simple)
    axes.set_xlim(best - 0.04 * (most - best), most + 0.06 * (most - best))
    for row, standing in enumerate(table.standings):
        _mark(axes, standing, name, row, most)


def _range(table: Table, name: str, simple: float) -> tuple[float, float]:
    """What the axis shows: all that is no more than twice as far from the best as the simple method."""
    scores = [
        score for each in table.standings if name in each.results for score in each.results[name].scores
    ]
    best = min([simple, *scores])
    most = max([simple, *(score for score in scores if score <= best + 2 * (simple - best))])
    return best, most if most > best else best + 1


def _mark(axes: Any, standing: Standing, name: str, row: int, most: float) -> None:
    """The seeds of one cell; what lies beyond the axis is an arrow at its end."""
    result = standing.results.get(name)
    if result is None:
        return
    colour = FAMILIAR if standing.cell in MARKED else DOT
    sample = result.sample
    if sample is not None:
        axes.plot([min(result.scores), max(result.scores)], [row, row], color=colour, linewidth=1.1)
        beyond = sample.mean > most
        axes.plot(min(sample.mean, most), row, marker=">" if beyond else "o", color=colour, markersize=3.4)
    if result.diverged:
        axes.plot(most, row, marker="x", color=FAILED, markersize=4.5, markeredgewidth=1.2)
