"""Shared by all figures: their style, how they are saved, and the JSON of the numbers behind them.

They are made for paper: a line is recognised by its label, its dashes and its grey as well as by its colour.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from cellwise.errors import CellwiseError

__all__ = [
    "INK", "MUTED", "RULE", "FigureError", "Look", "check_target", "in_style", "load_json", "looks", "new_figure",
    "plain", "rebuild", "result_path", "save", "save_json", "spread",
]  # fmt: skip

INK, MUTED, RULE = "#1f2933", "#5b6670", "#dfe3e8"
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.usetex": False,  # whatever a person's own style says: names are not handed to LaTeX
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "ytick.minor.size": 0,
    "savefig.facecolor": "white",
    "svg.hashsalt": "cellwise",
}
FORMATS = (".png", ".svg", ".pdf")
Look = tuple[str, Any]
# colour, dashes: from dark to light too, so that a grey print still tells them apart
_LOOKS: tuple[Look, ...] = (
    ("#9c2c13", (0, (5, 1.6))),
    ("#14367f", "solid"),
    ("#17805f", (0, (1.2, 1.2))),
    ("#7d4bb3", (0, (6, 1.5, 1.2, 1.5))),
    ("#b8790a", (0, (9, 2))),
    ("#4f5b66", (0, (3, 1, 1, 1, 1, 1))),
    ("#c2418a", (0, (2.5, 1))),
)


class FigureError(CellwiseError, ValueError):
    """A figure that cannot be drawn or written."""


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A colour and a dash pattern for each name, in order; they repeat after seven."""
    return {name: _LOOKS[place % len(_LOOKS)] for place, name in enumerate(names)}


def in_style() -> Any:
    """A context in which matplotlib draws in `STYLE`; its settings are restored afterwards.

    Raises:
        FigureError: matplotlib is not installed.
    """
    try:
        matplotlib = import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise FigureError(
            "A figure needs matplotlib, which is not installed: pip install matplotlib"
        ) from error
    return matplotlib.rc_context(STYLE)


def plain(name: str) -> str:
    """Escape a name for a figure, so that a `$` in it does not begin a formula.

    >>> plain("$x$")
    '\\\\$x\\\\$'
    """
    return name.replace("$", r"\$")


def new_figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """A figure of `size` inches and its axes (rows, columns)."""
    figure = import_module("matplotlib.figure").Figure(figsize=size, dpi=150, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def check_target(path: Path) -> None:
    """Check that a figure can be written to this path, before minutes are spent on measuring."""
    if path.suffix.lower() not in FORMATS:
        raise FigureError(
            f"'{path}' does not end like a picture; it can end in {', '.join(FORMATS)}, as in figure.png."
        )
    if path.is_dir() or (path.parent.exists() and not path.parent.is_dir()):
        raise FigureError(
            f"'{path}' cannot be written: it is, or lies in, something that is no folder of files."
        )


def result_path(picture: Path) -> Path:
    """Where the numbers of a picture lie, so that it can be drawn again."""
    return picture.with_suffix(".json")


def save(figure: Any, path: Path) -> None:
    """Write a figure in the format that its name ends in; the same figure gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    with in_style():
        figure.savefig(path, metadata=dates)


def save_json(path: Path, kind: str, study: Any, about: dict[str, Any]) -> None:
    """Write the numbers of an experiment, a dataclass, with its kind and the versions it was measured with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    saved = {"kind": kind, **about, "result": asdict(study)}
    path.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf8")


def load_json(path: Path, kind: str) -> dict[str, Any]:
    """The numbers that `save_json` wrote.

    Raises:
        FigureError: there is no such file, or it holds something else.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise FigureError(f"'{path}' cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise FigureError(f"'{path}' is not JSON, as `cellwise {kind}` writes it.") from error
    if not isinstance(saved, dict) or saved.get("kind") != kind or not isinstance(saved.get("result"), dict):
        raise FigureError(f"'{path}' holds no results of `cellwise {kind}`.")
    return dict(saved["result"])


def rebuild(kind: Any, saved: Any) -> Any:
    """The inverse of `dataclasses.asdict`, after a trip through JSON: a value of the type `kind`.

    Handles dataclasses, tuples, dicts, `X | None`, and whatever JSON itself can hold.

    Raises:
        KeyError: a field is missing, or unknown.
        TypeError: a list or an object is something else.
        ValueError: a tuple of fixed length is longer or shorter.

    >>> rebuild(tuple[tuple[int, ...], ...], [[1, 2], [3]])
    ((1, 2), (3,))
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if saved is None else rebuild(arguments[0], saved)
    container: Any = list if origin is tuple else dict if origin is dict or is_dataclass(kind) else object
    if not isinstance(saved, container):
        raise TypeError(f"{saved!r} is no {container.__name__}")
    if origin is tuple:
        kinds = arguments[:1] * len(saved) if arguments[-1] is Ellipsis else arguments
        return tuple(rebuild(each, value) for each, value in zip(kinds, saved, strict=True))
    if origin is dict:
        return {name: rebuild(arguments[1], value) for name, value in saved.items()}
    if not is_dataclass(kind):
        return saved
    hints = get_type_hints(kind)
    values = {name: rebuild(hints[name], value) for name, value in saved.items()}
    for field in fields(kind):
        if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise KeyError(field.name)
    return kind(**values)  # type: ignore[operator]


def spread(places: Sequence[float], gap: float, least: float = -math.inf) -> list[float]:
    """Move positions apart, as little as possible, until neighbours are `gap` apart and none lies below `least`.

    >>> spread([0.0, 0.5, 3.0], gap=1.0)
    [-0.25, 0.75, 3.0]
    >>> spread([0.0, 0.5, 1.5], gap=1.0, least=0.0)
    [0.0, 1.0, 2.0]
    """

    def first(group: list[int]) -> float:
        return max(least, sum(places[i] - step * gap for step, i in enumerate(group)) / len(group))

    # Groups that touch are merged and centred on the mean of where their members want to be.
    groups: list[list[int]] = []
    for i in sorted(range(len(places)), key=lambda i: places[i]):
        groups.append([i])
        while len(groups) > 1 and first(groups[-1]) < first(groups[-2]) + gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    moved = [0.0] * len(places)
    for group in groups:
        for step, i in enumerate(group):
            moved[i] = first(group) + step * gap
    return moved
