"""The ratios as a picture: to the right of 1 cellwise is faster, to the left slower, equally far for equal factors."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cellwise.bench import onnx
from cellwise.bench.implementations import AGAIN, PADDED
from cellwise.bench.measure import Row
from cellwise.bench.report import factor
from cellwise.bench.results import BenchResults
from cellwise.bench.speedup import Spread

_INK, _FAINT, _GRID, _REFUSED = "#1f2933", "#64707d", "#dfe3e8", "#b3261e"
_FASTER, _SLOWER = "#eef6f1", "#fbeeee"
_COLOURS = {
    "forward": "#2457d6",
    "train": "#c2570c",
    "step": "#7a3fb5",
    "step-out": "#b5508f",
    "small-forward": "#5b8def",
    "small-train": "#e08a4c",
    "recompute": "#8c6d1f",
    "ragged": "#0f8a5f",
    "ragged-forward": "#0b7285",
}
_MARKERS = {PADDED: "s", AGAIN: "^", onnx.NAME: "D"}  # all others: a filled circle
_COLUMNS = 3
_LETTERS = 15  # of the title to an inch
_LINE, _GAP = 1.0, 0.9  # the height of a comparison, and the room between shapes


@dataclass(frozen=True)
class _Mark:
    """One line of a panel: a comparison, or a refusal (no ratio)."""

    label: str
    mode: str
    against: str
    ratio: Spread | None


def png(results: BenchResults) -> bytes:
    """Draw the results: one panel a cell, one group a shape, one line a comparison, its quartiles as a bar.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure_module, matplotlib = import_module("matplotlib.figure"), import_module("matplotlib")
    panels = _panels(results.rows)
    columns = min(_COLUMNS, len(panels)) or 1
    bands = math.ceil(len(panels) / columns) or 1
    tallest = max((_height(groups) for groups in panels.values()), default=5.0)
    with matplotlib.rc_context({"font.size": 8.5, "axes.titlesize": 10.5, "axes.titlelocation": "left"}):
        size = (4.4 * columns + 0.6, max(2.2, 0.145 * tallest) * bands + 1.3)
        figure = figure_module.Figure(figsize=size, layout="constrained")
        for place, (cell, groups) in enumerate(panels.items()):
            axes = figure.add_subplot(bands, columns, place + 1)
            axes.set_title(cell, color=_INK)
            _panel(axes, groups)
        lines = [textwrap.fill(line, int(_LETTERS * size[0])) for line in _title(results).splitlines()]
        figure.suptitle("\n".join(lines), fontsize=9, color=_FAINT, x=0.01, ha="left")
        _legend(figure, panels)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        return buffer.getvalue()


def _panels(rows: Sequence[Row]) -> dict[str, dict[str, list[_Mark]]]:
    """cell -> shape -> its lines from top to bottom."""
    panels: dict[str, dict[str, list[_Mark]]] = {}
    for row in rows:
        lines = panels.setdefault(row.cell, {}).setdefault(str(row.shape), [])
        if row.mismatch is not None:
            lines.append(_Mark(row.mode, row.mode, "", None))
        for other in row.times[1:]:
            lines.append(_Mark(row.mode, row.mode, other.name, row.speedup(other)))
    return panels


def _limit(groups: dict[str, list[_Mark]]) -> float:
    """The same distance from 1 on both sides, so that losses have as much room as wins. A panel has its own: beside
    a loop in Python the factors are of another order than beside torch's operators."""
    ratios = [mark.ratio for lines in groups.values() for mark in lines]
    ends = [max(ratio.high, 1 / ratio.low) for ratio in ratios if ratio is not None]
    return max([2.0, *ends]) ** 1.3  # and room for the figures


def _height(groups: dict[str, list[_Mark]]) -> float:
    return sum(len(lines) * _LINE + _GAP for lines in groups.values())


def _panel(axes: Any, groups: dict[str, list[_Mark]]) -> None:
    ticker, limit = import_module("matplotlib.ticker"), _limit(groups)
    height = _height(groups)
    axes.set_xscale("log")
    axes.set_xlim(1 / limit, limit)
    axes.set_ylim(height, -_GAP)
    axes.axvspan(1, limit, color=_FASTER, zorder=0)
    axes.axvspan(1 / limit, 1, color=_SLOWER, zorder=0)
    axes.axvline(1, color=_INK, linewidth=1.1, zorder=2)
    places, labels, y = [], [], 0.0
    for shape, lines in groups.items():
        places.append(y + (len(lines) - 1) * _LINE / 2)
        labels.append(shape)
        for mark in lines:
            _draw(axes, y, mark)
            y += _LINE
        axes.axhline(y - _LINE / 2 + _GAP / 2, color=_GRID, linewidth=0.8, zorder=1)
        y += _GAP
    axes.set_yticks(places, labels)
    ticks = _ticks(limit)
    axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(
        ticker.FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
    )
    axes.grid(axis="x", color=_GRID, linewidth=0.7, zorder=1)
    axes.tick_params(length=0, colors=_INK)
    axes.set_xlabel("← cellwise slower     times     cellwise faster →", color=_FAINT)
    for side in axes.spines.values():
        side.set_color(_GRID)


# From the finest: the first that has no more than five up to the limit is taken, or labels would overlap.
_SCALES = ((1, 2, 5, 10, 20, 50), (1, 3, 10, 30, 100, 300), (1, 10, 100, 1000, 10_000))


def _ticks(limit: float) -> list[float]:
    inside = next(
        found for scale in _SCALES if len(found := [float(step) for step in scale if step <= limit]) <= 5
    )
    return [1 / step for step in reversed(inside[1:])] + inside


def _draw(axes: Any, y: float, mark: _Mark) -> None:
    if mark.ratio is None:
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        text = f"{mark.mode}: not timed, wrong result"
        axes.text(1, y, text, color=_REFUSED, ha="center", va="center", fontsize=7.5, zorder=4, bbox=paper)
        return
    colour = _COLOURS[mark.mode]
    ratio = mark.ratio
    axes.plot([1, ratio.median], [y, y], color=colour, linewidth=0.9, alpha=0.45, zorder=2)
    axes.plot([ratio.low, ratio.high], [y, y], color=colour, linewidth=2.6, alpha=0.9, zorder=3)
    marker = _MARKERS.get(mark.against, "o")
    axes.plot([ratio.median], [y], marker, color=colour, markersize=4.6, markeredgecolor="white", zorder=4)
    right = ratio.median >= 1
    axes.annotate(
        factor(ratio.median),
        (ratio.high if right else ratio.low, y),
        (4 if right else -4, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        va="center",
        fontsize=6.5,
        color=_FAINT,
    )


def _legend(figure: Any, panels: dict[str, dict[str, list[_Mark]]]) -> None:
    lines = import_module("matplotlib.lines")
    marks = [mark for groups in panels.values() for each in groups.values() for mark in each]
    modes = dict.fromkeys(mark.mode for mark in marks)
    others = dict.fromkeys(mark.against for mark in marks if mark.against)
    handles = [lines.Line2D([], [], color=_COLOURS[mode], linewidth=3, label=mode) for mode in modes]
    handles += [
        lines.Line2D(
            [],
            [],
            color=_FAINT,
            marker=_MARKERS.get(name, "o"),
            linestyle="",
            markersize=5,
            label=f"beside {name}",
        )
        for name in others
    ]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)


def _title(results: BenchResults) -> str:
    machine, gpu = results.machine, results.machine.get("gpu")
    where = gpu["name"] if gpu else f"{machine['processor']}, threads: {machine['threads']}"
    text = (
        f"Time of the other side over that of cellwise {machine['versions']['cellwise']} by shape T,B,D,H; "
        f"thick: quartiles\n{where}, torch {machine['versions']['torch']}, {results.settings.dtype}"
    )
    return text + ("\ninterrupted: not all was measured" if results.interrupted else "")
