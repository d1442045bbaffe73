"""What the charts of every report share: one style, an SVG that takes its colours from the page, axes, the legend.

A chart is a function that draws on matplotlib axes; `chart` puts it into a frame and gives the SVG as text. It needs no
fonts or files of its own. `page_svg` prepares such a text for a page, whose style has the colours by name.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cellwise.tasks.data.optional import require
from cellwise.tasks.shown import shown
from cellwise.tasks.training.history import History

__all__ = [
    "BASELINE",
    "COLOURS",
    "FAINT",
    "GOOD",
    "GRID",
    "INK",
    "LONGEST_NAME",
    "MODEL",
    "chart",
    "chart_label",
    "charts",
    "date_axis",
    "legend",
    "loss_plot",
    "page_svg",
    "stacked",
    "thousands",
    "whole_numbers",
]

LONGEST_NAME = 60  # characters
LEAST_TICKS = 9  # of dates on an axis: with fewer, matplotlib finds no step for some ranges
LARGEST = 1.45  # pixels of the page to a point of a chart: 9.5 points are then 14 pixels

# custom property of the page -> its colour on paper, and in the dark. A chart is drawn in the first.
COLOURS = {
    "ink": ("#1f2933", "#e4e8ee"),
    "faint": ("#64707d", "#98a4b3"),
    "grid": ("#dfe3e8", "#2c3542"),
    "model": ("#2457d6", "#7ba4ff"),
    "baseline": ("#c2570c", "#f2a15f"),
    "good": ("#0f8a5f", "#58c99b"),
}
INK, FAINT, GRID, MODEL, BASELINE, GOOD = (paper for paper, _ in COLOURS.values())

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


def chart(draw: Callable[[Any], None], width: float, height: float, salt: str) -> str:
    """A chart of width x height inches as SVG: `draw` is given its axes. Each chart of a page has a salt of its own."""
    return charts([draw], 1, width, height, salt)


def charts(
    draws: Sequence[Callable[[Any], None]],
    columns: int,
    width: float,
    height: float,
    salt: str,
    legend_columns: int = 0,
) -> str:
    """Several charts in one frame of width x height inches, row by row; above them a legend of the first, in so many
    columns, if asked."""
    figure_module, matplotlib = require("matplotlib.figure"), require("matplotlib")
    with matplotlib.rc_context(STYLE):
        figure = figure_module.Figure(figsize=(width, height), layout="constrained")
        for index, draw in enumerate(draws, 1):
            draw(figure.add_subplot(math.ceil(len(draws) / columns), columns, index))
        if legend_columns:
            known = figure.axes[0].get_legend_handles_labels()
            figure.legend(*known, loc="outside upper left", ncols=legend_columns, **_LEGEND)
        return _svg(figure, salt)


def stacked(draws: Sequence[Callable[[Any], None]], heights: Sequence[float], width: float, salt: str) -> str:
    """Charts below each other with one axis across, which the lowest shows; heights in inches."""
    figure_module, matplotlib = require("matplotlib.figure"), require("matplotlib")
    with matplotlib.rc_context(STYLE):
        figure = figure_module.Figure(figsize=(width, sum(heights)), layout="constrained")
        axes = figure.subplots(
            len(draws), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(heights)}
        )[:, 0]
        for draw, own in zip(draws, axes, strict=True):
            draw(own)
        return _svg(figure, salt)


def _svg(figure: Any, salt: str) -> str:
    """The figure as text; equal figures give equal text. The salt keeps the ids of several charts on a page apart."""
    matplotlib = require("matplotlib")
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        # The text is drawn by whoever shows the page, with fonts of their own.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support .* natively")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    # the same names come in every figure, and a page holds several
    pattern = r'((?<![\w-])id="|href="#|url\(#)'
    return _in_tags(buffer.getvalue(), lambda tag: re.sub(pattern, rf"\1{salt}-", tag))


def page_svg(svg: str) -> str:
    """A plot for inside the page: colours follow the page, no addresses; as wide as there is room, up to the size at
    which its letters are those of the text."""
    svg = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)

    def restyle(tag: str) -> str:
        for name, (colour, _) in COLOURS.items():
            tag = tag.replace(colour, f"var(--{name})")
        tag = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", tag)
        if tag.startswith("<svg"):
            size = re.search(r'\swidth="([\d.]+)pt"', tag)
            tag = re.sub(r'\s(width|height)="[^"]*"', "", tag)
            if size is not None:
                tag = f'<svg style="max-width: {LARGEST * float(size[1]):.0f}px"{tag[4:]}'
        return tag.replace("'DejaVu Sans'", "system-ui, sans-serif")

    return _in_tags(svg, restyle).strip()


def _in_tags(svg: str, change: Callable[[str], str]) -> str:
    """Change the tags only: what stands between them is text, and a person's own. (Within tags ">" is escaped.)"""
    return re.sub(r"<[^>]*>", lambda found: change(found[0]), svg)


def chart_label(name: str, longest: int = LONGEST_NAME) -> str:
    """A name as a picture can hold it, of at most so many characters."""
    text = shown(name, longest)
    # matplotlib leaves what begins with "_" out of legends; a space without width before it is not seen.
    return f"\u200b{text}" if text.startswith("_") else text


def whole_numbers(axes: Any) -> None:
    """Ticks at whole numbers only, on the axis across."""
    axes.xaxis.set_major_locator(require("matplotlib.ticker").MaxNLocator(integer=True))


def date_axis(axes: Any, times: np.ndarray, most: int = 10) -> None:
    """Dates, at most about `most` of them, on the axis across; other times are numbered."""
    axes.margins(x=0.01)
    if times.dtype.kind == "M":
        dates = require("matplotlib.dates")
        # Up to three of the larger unit come in steps of at most 6 months, 21 days, 12 hours, 30 minutes or seconds.
        units = (dates.MONTHLY, dates.DAILY, dates.HOURLY, dates.MINUTELY, dates.SECONDLY)
        ticks = {dates.YEARLY: most} | dict.fromkeys(units, max(most, LEAST_TICKS))
        locator = dates.AutoDateLocator(minticks=3, maxticks=ticks)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    thousands(axes)


def thousands(axes: Any) -> None:
    """Commas in large numbers, on the axis up."""
    low, high = axes.get_ylim()
    if max(abs(low), abs(high)) >= 2000:
        axes.yaxis.set_major_formatter(require("matplotlib.ticker").StrMethodFormatter("{x:,.0f}"))


def legend(axes: Any, columns: int = 5) -> None:
    """Above the axes, so that it never covers a line."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, **_LEGEND)


_LEGEND = {"borderaxespad": 0.2, "handlelength": 1.6, "columnspacing": 1.4}


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
        whole_numbers(axes)
        legend(axes)

    return chart(draw, 4.7, 3.0, "loss")
