"""The figure of `cellwise gradients`: the derivative through time on a log axis, before and after training."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, NamedTuple

from cellwise.experiments.vanishing_gradients import STARTS, Curve, GradientStudy
from cellwise.understand.figures import INK, MUTED, Look, in_style, looks, new_figure, plain, spread

__all__ = ["draw_gradients"]

# What is smaller than this is drawn as leaving through the floor: a float32 has no digits left for it beside 1.
FLOOR = 1e-12
LINE = 0.07  # the height of a line of text, as a share of a panel's
_BEHIND = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5}


class End(NamedTuple):
    """Where a line leaves its panel, and what it is called."""

    lag: float
    value: float
    name: str
    colour: str


def draw_gradients(study: GradientStudy) -> Any:
    """A matplotlib figure: a column for each way to start, the upper row untrained, the lower one trained.

    A fourth column, where there was training, is about clipping. Lines are geometric means, bands reach from the 10th
    to the 90th percentile.

    Raises:
        FigureError: matplotlib is not installed.
    """
    with in_style():
        return _draw(study)


def _draw(study: GradientStudy) -> Any:
    rows = 2 if study.settings.train else 1
    columns = len(STARTS) + (rows == 2)
    figure, axes = new_figure(rows, columns, (3.15 * columns, 2.75 * rows + 0.5))
    look = looks(study.cells)
    top = _top(study)
    for column, start in enumerate(STARTS):
        for row in range(rows):
            curves = [study.find(cell, start, trained=row == 1) for cell in study.cells]
            _panel(axes[row][column], study, [c for c in curves if c is not None], look, top)
            axes[row][column].set_title(_title(study, start) if row == 0 else "the same, trained")
    if rows == 2:
        _training_panel(axes[0][-1], study, look)
        unclipped = [study.find(cell, "as drawn", trained=True, clipped=False) for cell in study.cells]
        _panel(axes[1][-1], study, [c for c in unclipped if c is not None], look, top)
        axes[1][-1].set_title("as torch draws it, trained, no clip")
    for row in axes:
        row[0].set_ylabel("norm of the derivative of the\nlast states by earlier ones")
    for panel in axes[-1]:
        panel.set_xlabel("lag, in steps")
    figure.suptitle(_caption(study), x=0.01, ha="left", fontsize=8.5, color=MUTED)
    return figure


def _title(study: GradientStudy, start: str) -> str:
    return {
        "as drawn": "as torch draws it",
        "forget bias": f"gates that keep: bias +{study.settings.bias:g}",
        "orthogonal": "orthogonal recurrent rows",
    }[start]


def _caption(study: GradientStudy) -> str:
    s = study.settings
    text = (
        f"{s.norm} norm, H = {s.hidden_size}; mean and 10th to 90th percentile over {s.seeds} seeds with "
        f"{s.sequences} sequences of the adding problem each"
    )
    if s.train:
        text += f"; trained on sequences of {s.train_length} numbers, at most {s.updates} updates, clip {s.clip:g}"
    return text


def _top(study: GradientStudy) -> float:
    """A power of ten that nearly all lines stay below; what explodes beyond it leaves through the ceiling."""
    highest = max(
        (value for c in study.curves for value in c.high if math.isfinite(value)),
        default=1.0,
    )
    return 10.0 ** min(6, max(1, math.ceil(math.log10(highest))))


def _panel(axes: Any, study: GradientStudy, curves: list[Curve], look: dict[str, Look], top: float) -> None:
    T = study.settings.length
    axes.set_yscale("log")
    axes.set_ylim(FLOOR, top)
    axes.set_xlim(0, T)
    axes.axhline(1.0, color=MUTED, linewidth=0.8)
    ends = []
    for curve in curves:
        colour, dashes = look[curve.cell]
        # A logarithm has no zero: what lies under the floor is drawn far under it.
        low, middle, high = (
            [max(value, FLOOR / 1e6) for value in values] for values in (curve.low, curve.middle, curve.high)
        )
        axes.fill_between(range(T + 1), low, high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(range(T + 1), middle, color=colour, linestyle=dashes, linewidth=1.7)
        ends.append(End(*_leaves(middle, top), curve.cell, colour))
    right = [end for end in ends if end.lag >= T]
    _label_right(axes, right)
    taken = any(end.value < FLOOR * (top / FLOOR) ** 0.25 for end in right)
    _label_floor(axes, [end for end in ends if end.lag < T], T, top, taken)
    if not curves:
        axes.text(0.5, 0.5, "no cell here has\nsuch a thing to set", transform=axes.transAxes, ha="center")


def _leaves(values: list[float], top: float) -> tuple[float, float]:
    """Where a line leaves the panel: at its right edge, or earlier through the floor or the ceiling."""
    for lag, value in enumerate(values):
        if not FLOOR <= value <= top:
            return float(lag), min(max(value, FLOOR), top)
    return float(len(values) - 1), values[-1]


def _label_right(axes: Any, ends: list[End]) -> None:
    """Name each line beside the right edge, where it ends."""
    low, high = (math.log10(limit) for limit in axes.get_ylim())
    line = LINE * (high - low)
    heights = spread([math.log10(end.value) for end in ends], gap=line, least=low + line / 2)
    for end, height in zip(ends, heights, strict=True):
        _write(axes, end, end.lag, 10**height)


def _label_floor(axes: Any, ends: list[End], T: int, top: float, taken: bool) -> None:
    """Name the lines that leave through the floor or the ceiling, those that leave together in one stack.

    `taken`: the lower right corner has labels of its own.
    """
    stacks: list[list[End]] = []
    for end in sorted(ends, key=lambda end: (end.value > 1, end.lag)):
        beside = stacks and (end.value > 1) == (stacks[-1][0].value > 1)
        if beside and end.lag - stacks[-1][-1].lag < T * 0.16:
            stacks[-1].append(end)
        else:
            stacks.append([end])
    for stack in stacks:
        sinks, crowded = stack[0].value < 1, taken and stack[-1].lag > 0.7 * T
        for place, end in enumerate(reversed(stack)):
            share = LINE * (place + 0.6) + (0.3 if crowded else 0.0)  # of the panel's height
            value = end.value * (top / FLOOR) ** (share if sinks else -share)
            if crowded:  # no room to the right: higher up and to the left of the line, where that one is then
                _write(axes, end, stack[0].lag * (1 - share - LINE), value, side="right")
            else:
                _write(axes, end, stack[-1].lag, value)


def _write(axes: Any, end: End, lag: float, value: float, side: str = "left") -> None:
    axes.annotate(
        plain(end.name), (lag, value), xytext=(4 if side == "left" else -4, 0), textcoords="offset points", ha=side,
        va="center", annotation_clip=False, color=end.colour, fontweight="bold", fontsize=8, bbox=_BEHIND,
    )  # fmt: skip


def _training_panel(axes: Any, study: GradientStudy, look: dict[str, Look]) -> None:
    """How large the gradient of the weights was at each update when nothing clipped it."""
    axes.set_yscale("log")
    axes.set_title("gradient of the weights, no clip")
    axes.axhline(study.settings.clip, color=INK, linewidth=0.9)
    axes.annotate(
        f"clip {study.settings.clip:g}", (1, study.settings.clip), xycoords=("axes fraction", "data"),
        xytext=(-1, 2), textcoords="offset points", ha="right", fontsize=7,
    )  # fmt: skip
    drawn: list[End] = []
    for cell in study.cells:
        curve = study.find(cell, "as drawn", trained=True, clipped=False)
        if curve is None or curve.training is None or not curve.training.gradients:
            continue
        sizes = _largest_of(curve.training.gradients)
        colour, dashes = look[cell]
        axes.plot(
            [at for at, _ in sizes], [v for _, v in sizes], color=colour, linestyle=dashes, linewidth=1.3
        )
        drawn.append(End(*sizes[-1], cell, colour))
    axes.set_xlim(0, study.settings.updates)
    ticker = import_module("matplotlib.ticker")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    _label_right(axes, drawn)
    axes.set_xlabel("updates (largest of each ten)")


def _largest_of(values: tuple[float, ...], every: int = 10) -> list[tuple[int, float]]:
    return [
        (min(at + every, len(values)), max(values[at : at + every])) for at in range(0, len(values), every)
    ]
