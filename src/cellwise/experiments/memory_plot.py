"""The figure of `cellwise memory`: for each task and cell the lags it learned, and what they cost."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from cellwise.experiments.memory import MemoryStudy, Trial
from cellwise.experiments.memory_tasks import TASKS
from cellwise.understand.figures import INK, MUTED, in_style, looks, new_figure, plain

__all__ = ["draw_memory"]


def draw_memory(study: MemoryStudy) -> Any:
    """A matplotlib figure: a panel for each task, a row for each cell, its lags to the right on a log axis.

    A full dot is a lag that all seeds learned, a ring one that some did, a cross one that none did. Above a dot stand
    the updates it took; the bar ends at the longest lag that any seed learned.

    Raises:
        FigureError: matplotlib is not installed.
    """
    with in_style():
        return _draw(study)


def _draw(study: MemoryStudy) -> Any:
    tasks, cells = study.settings.tasks, study.cells
    figure, axes = new_figure(
        1, len(tasks), (3.6 * len(tasks) + 0.6, 0.52 * len(cells) + 1.5), sharex=True, sharey=True
    )
    for panel, task in zip(axes[0], tasks, strict=True):
        _panel(panel, study, task)
    axes[0][0].set_yticks(
        range(len(cells)), [plain(each) for each in cells], fontsize=9.5, fontweight="bold", color=INK
    )
    for label, (colour, _) in zip(axes[0][0].get_yticklabels(), looks(cells).values(), strict=True):
        label.set_color(colour)
    axes[0][0].set_ylim(len(cells) - 0.45, -0.6)
    s = study.settings
    how = f"{s.hidden_size} hidden units each" if s.same == "units" else "the same number of parameters each"
    figure.suptitle(
        f"● learned by all seeds ({s.seeds})   ○ by some   × by none   numbers: updates it took, median, of at most "
        f"{s.updates}; {how}",
        x=0.01, ha="left", fontsize=8.5, color=MUTED,
    )  # fmt: skip
    return figure


def _panel(axes: Any, study: MemoryStudy, task: str) -> None:
    lags = study.settings.lags
    axes.set_xscale("log", base=2)
    axes.set_xlim(lags[0] / 1.35, lags[-1] * 1.5)
    axes.xaxis.set_major_locator(import_module("matplotlib.ticker").FixedLocator(lags))
    axes.xaxis.set_major_formatter(import_module("matplotlib.ticker").StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(import_module("matplotlib.ticker").NullLocator())
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_title(f"{task}  (chance {TASKS[task].chance:.0%})")
    axes.set_xlabel("lag: " + _wrapped(TASKS[task].meaning))
    for row, (cell, (colour, _)) in enumerate(looks(study.cells).items()):
        longest = study.longest(task, cell)
        if longest is not None:
            axes.plot(
                [lags[0] / 1.35, longest], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt"
            )
        for trial in study.find(task, cell):
            _mark(axes, trial, row, colour)
        if study.cut_short(task, cell):
            last = study.find(task, cell)
            axes.annotate(
                "not tried further", (last[-1].lag if last else lags[0], row), xytext=(9, -3), color=MUTED,
                textcoords="offset points", fontsize=7,
            )  # fmt: skip


def _mark(axes: Any, trial: Trial, row: int, colour: str) -> None:
    if not trial.solvers:
        axes.plot(trial.lag, row, marker="x", color=colour, markersize=6.5, markeredgewidth=1.8)
        return
    full = trial.solvers == len(trial.solved)
    axes.plot(
        trial.lag, row, marker="o", markersize=7.5, markeredgewidth=1.8, color=colour,
        markerfacecolor=colour if full else "white",
    )  # fmt: skip
    axes.annotate(
        f"{trial.typical_updates}", (trial.lag, row), xytext=(0, 6.5), textcoords="offset points", ha="center",
        fontsize=7, color=INK,
    )  # fmt: skip


def _wrapped(text: str, width: int = 40) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
