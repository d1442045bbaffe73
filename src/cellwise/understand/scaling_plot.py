"""The figure of `cellwise complexity --measure`: measured times beside what the counted operations predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellwise.understand.figures import INK, MUTED, Look, in_style, looks, new_figure, plain
from cellwise.understand.scaling import FIELDS, PASSES, Curve, Scaling

__all__ = ["draw_scaling"]


def draw_scaling(scaling: Scaling) -> Any:
    """A matplotlib figure: a row for each pass, a column for each size that was varied, both axes logarithmic.

    Dots are medians with the range of the repeats; the exponent of their growth beside a fixed cost stands in the
    corner. Lines are the counted operations, drawn through the largest size, so that a dot above its line is slower
    there than the count says. A diamond stands on the line where as many operations grow with h² as with h.

    Raises:
        FigureError: matplotlib is not installed.
    """
    with in_style():
        figure, axes = new_figure(len(PASSES), len(FIELDS), (10.5, 6.4))
        look = looks(tuple(dict(scaling.backends)))
        for row, work in enumerate(PASSES):
            for column, (letter, name) in enumerate(FIELDS.items()):
                _panel(axes[row][column], scaling.of(work, letter), look)
                axes[row][column].set_title(f"{work}, by {name.replace('_', ' ')} {letter}")
            axes[row][0].set_ylabel("milliseconds of processor time")
        _legend(figure, scaling, look)
    return figure


def _panel(panel: Any, curves: Sequence[Curve], look: dict[str, Look]) -> None:
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    for place, curve in enumerate(reversed(curves)):
        _draw(panel, curve, look[curve.cell])
        # Lines rise, so that the lower right corner is free.
        fit = curve.exponent_of_growth
        panel.annotate(
            f"${curve.letter}^{{{fit.middle:.2f}}}$" if fit.is_sure else f"${curve.letter}^?$",
            (0.99, 0.03), xycoords="axes fraction", xytext=(0, 10.5 * place), textcoords="offset points",
            color=look[curve.cell][0], ha="right", fontsize=8.5,
        )  # fmt: skip
    panel.set_xticks(curves[0].sizes, [str(size) for size in curves[0].sizes])
    panel.minorticks_off()
    panel.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
    panel.tick_params(labelcolor=INK)


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


def _legend(figure: Any, scaling: Scaling, look: dict[str, Look]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=colour,
            linestyle=dashes,
            marker="o",
            markersize=3.6,
            label=plain(f"{cell} ({backend})"),
        )
        for cell, backend in scaling.backends
        for colour, dashes in [look[cell]]
    ]
    if any(curve.predicted_crossing is not None for curve in scaling.of(PASSES[0], "h")):
        handles.append(
            Line2D(
                [], [], color=MUTED, marker="D", markerfacecolor="white", linestyle="", label="h² takes over"
            )
        )
    sizes = scaling.sizes
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.suptitle(
        "Measured (dots; in the corner the exponent of growth beside a fixed cost, ? where repeats differ by more than "
        f"a half) and counted (lines,\nthrough the largest size). d = {sizes.input_size}, h = {sizes.hidden_size}, "
        f"{sizes.layers} layer{'s' * (sizes.layers > 1)}, b = {sizes.batch}, t = {sizes.length} where not varied; "
        f"float32, one thread, median and range of {scaling.repeats} repeats.",
        x=0.01,
        ha="left",
        fontsize=8.5,
        color=MUTED,
    )
