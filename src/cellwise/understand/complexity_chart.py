"""The figure of `cellwise complexity --measure`: measured times beside what the counted operations predict."""

from __future__ import annotations

from typing import Any

from cellwise.understand.figures import INK, MUTED, Look, looks, new_figure
from cellwise.understand.growth import FIELDS, PASSES, Curve, Growth

__all__ = ["draw_growth"]

_TITLES = {"t": "in length T", "b": "in batch B", "h": "in hidden size H"}


def draw_growth(growth: Growth) -> Any:
    """A matplotlib figure: a row for each pass, a column for each size that was varied, both axes logarithmic.

    Dots are medians with the range of the repeats. Lines are the counted operations, drawn through the largest
    size, so that a dot above its line is slower there than the count says. A diamond stands on the line where as many
    operations grow with the square of H as with H itself.

    Raises:
        FigureError: matplotlib is not installed.
    """
    figure, axes = new_figure(len(PASSES), len(FIELDS), (10.5, 6.4))
    look = looks(tuple(dict(growth.backends)))
    for row, work in enumerate(PASSES):
        for column, letter in enumerate(FIELDS):
            panel = axes[row][column]
            for curve in growth.of(work, letter):
                _draw(panel, curve, look[curve.cell])
            _axes(panel, growth.of(work, letter)[0])
            panel.set_title(f"{work}, {_TITLES[letter]}")
        axes[row][0].set_ylabel("milliseconds")
    for panel, letter in zip(axes[-1], FIELDS, strict=True):
        panel.set_xlabel(FIELDS[letter].replace("_", " "))
    _legend(figure, growth, look)
    return figure


def _draw(panel: Any, curve: Curve, look: Look) -> None:
    colour, dashes = look
    milliseconds = [1000 * each for each in curve.medians]
    low = [1000 * (middle - min(each)) for middle, each in zip(curve.medians, curve.seconds, strict=True)]
    high = [1000 * (max(each) - middle) for middle, each in zip(curve.medians, curve.seconds, strict=True)]
    panel.errorbar(
        curve.sizes,
        milliseconds,
        (low, high),
        fmt="o",
        color=colour,
        markersize=3.6,
        elinewidth=0.9,
        zorder=3,
    )
    scale = milliseconds[-1] / curve.operations[-1]
    panel.plot(
        curve.sizes, [scale * n for n in curve.operations], color=colour, linestyle=dashes, linewidth=1.1
    )
    crossing = curve.predicted_crossing
    if crossing is not None and curve.sizes[0] <= crossing <= curve.sizes[-1]:
        linear, square = curve.terms
        rest = curve.operations[-1] - linear * curve.sizes[-1] - square * curve.sizes[-1] ** 2
        there = scale * (rest + linear * crossing + square * crossing**2)
        panel.plot(
            [crossing], [there], marker="D", color="white", markeredgecolor=colour, markersize=6, zorder=4
        )


def _axes(panel: Any, curve: Curve) -> None:
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(curve.sizes, [str(size) for size in curve.sizes])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
    panel.tick_params(labelcolor=INK)


def _legend(figure: Any, growth: Growth, look: dict[str, Look]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=colour, linestyle=dashes, marker="o", markersize=3.6, label=f"{cell} ({backend})"
        )
        for cell, backend in growth.backends
        for colour, dashes in [look[cell]]
    ]
    if any(curve.predicted_crossing is not None for curve in growth.of(PASSES[0], "h")):
        handles.append(
            Line2D(
                [], [], color=MUTED, marker="D", markerfacecolor="white", linestyle="", label="H² takes over"
            )
        )
    sizes = growth.sizes
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.suptitle(
        f"Measured (dots) and counted (lines, through the largest size).  D = {sizes.input_size}, H = "
        f"{sizes.hidden_size}, L = {sizes.layers}, B = {sizes.batch}, T = {sizes.length} where not varied; float32, "
        f"one thread, median and range of {growth.repeats}",
        x=0.01,
        ha="left",
        fontsize=8.5,
        color=MUTED,
    )
