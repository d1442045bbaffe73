"""How commands speak: results on stdout, remarks on stderr, tables that fit, and files that can be written."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import click

from cellwise.cli.command import option
from cellwise.errors import CellwiseError
from cellwise.tasks.training.rank import is_first

__all__ = [
    "JSON",
    "QUIET",
    "Json",
    "OutputError",
    "Quiet",
    "check_file",
    "is_quiet",
    "print_json",
    "print_table",
    "say",
    "set_quiet",
]

_GAP = 3  # between the columns of a table
_LEAST = 24  # letters in a line of prose beside other columns; with less room it stands below them
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


class OutputError(CellwiseError, ValueError):
    """A result cannot be written where, or as, it was asked for."""


def set_quiet(quiet: bool) -> None:
    """Whether nothing but results and errors is said, by `say` or by the library. Of the processes that torchrun starts
    only the first speaks."""
    quiet = quiet or not is_first()
    _QUIET.set(quiet)
    logging.getLogger("cellwise").setLevel(logging.ERROR if quiet else logging.NOTSET)


def is_quiet() -> bool:
    return _QUIET.get()


def say(text: str) -> None:
    """A remark, on stderr."""
    if not is_quiet():
        click.echo(text, err=True)


# Options that several commands have.
QUIET = option(
    "--quiet",
    "-q",
    callback=lambda ctx, param, quiet: set_quiet(quiet),
    help="Print results and errors only, no remarks or progress.",
)
JSON = option("--json", help="Print the result as one JSON value, nothing else on stdout.")
Quiet = Annotated[bool, QUIET]
Json = Annotated[bool, JSON]


def print_json(value: Any) -> None:
    """One JSON value; what is no number (NaN) is null."""
    click.echo(json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if hasattr(value, "tolist"):  # an array or a number of numpy
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- tables -----------------------------------------------------------------------------------------------------


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, prose: bool = False
) -> None:
    """A table of plain text on stdout, as wide as it needs to be, and on a terminal no wider than that."""
    click.echo(table(titles, rows, left, prose, _width()))


def _width() -> int | None:
    """The letters in a line, where there is a limit."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return None


def table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    left: int = 1,
    prose: bool = False,
    width: int | None = None,
) -> str:
    """A table as text: the first `left` columns are words, the others numbers, the last sentences if `prose`.

    Where it is wider than `width`, it comes in several tables with the first columns in each; a column that is too wide
    even so stands below its row. Nothing is ever cut.

    >>> print(table(["", "a", "b"], [["one", "1", "22"], ["two", "333", "4"]]))
            a    b
    ---   ---   --
    one     1   22
    two   333    4
    >>> print(table(["", "a", "b"], [["one", "1", "22"], ["two", "333", "4"]], width=9))
            a
    ---   ---
    one     1
    two   333
    <BLANKLINE>
           b
    ---   --
    one   22
    two    4
    """
    rows = list(rows)
    if prose and width is not None:
        return _with_prose(titles, rows, width)
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles))]
    blocks = []
    for columns in _groups(
        [_GAP + each for each in widths], left, math.inf if width is None else width + _GAP
    ):
        lines = [
            [titles[i] for i in columns],
            ["-" * widths[i] for i in columns],
            *([row[i] for i in columns] for row in rows),
        ]
        if width is not None and sum(widths[i] + _GAP for i in columns) - _GAP > width:
            blocks.append("\n".join(_stacked([titles[i] for i in columns], lines[2:], left, width)))
            continue
        sides = ["<" if i < left or (prose and i == len(titles) - 1) else ">" for i in columns]
        blocks.append(_lines(lines, [widths[i] for i in columns], sides))
    return "\n\n".join(blocks)


def _lines(rows: Iterable[Sequence[str]], widths: Sequence[int], sides: Sequence[str]) -> str:
    gap = " " * _GAP
    return "\n".join(
        gap.join(
            f"{text:{side}{width}}" for text, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _stacked(titles: Sequence[str], rows: Iterable[Sequence[str]], left: int, width: int) -> Iterable[str]:
    yield from filter(None, titles[left:])
    for row in rows:
        yield "  ".join(filter(None, row[:left]))
        for text in row[left:]:
            yield textwrap.fill(
                text, width, initial_indent="    ", subsequent_indent="    ", break_long_words=False
            )


def _with_prose(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """The last column is wrapped into the room that is left, or stands below each row."""
    short = [max(len(row[column]) for row in (titles, *rows)) for column in range(len(titles) - 1)]
    room = width - sum(short) - _GAP * len(short)
    if room >= _LEAST:
        wrapped = []
        for row in (titles, *rows):
            first, *more = textwrap.wrap(row[-1], room) or [""]
            wrapped += [[*row[:-1], first], *([*([""] * len(short)), line] for line in more)]
        title, *body = wrapped
        rule = ["-" * each for each in (*short, max(len(row[-1]) for row in wrapped))]
        return _lines([title, rule, *body], [*short, room], "<" * len(titles))
    blocks = []
    for row in rows:
        lines = [textwrap.fill(row[-1], width, initial_indent="  ", subsequent_indent="  ")]
        facts = [f"{title} {text}" for title, text in zip(titles[1:-1], row[1:-1], strict=True)]
        lines.insert(0, textwrap.fill("; ".join(facts), width, initial_indent="  ", subsequent_indent="  "))
        blocks.append("\n".join([row[0], *lines]))
    return "\n".join(blocks)


def _groups(widths: Sequence[int], left: int, room: float) -> list[list[int]]:
    """The columns of each table, so that it fits; the first `left` stand in all, and at least one beside them.

    >>> _groups([10, 5, 5, 5], left=1, room=20), _groups([10, 50, 5], left=1, room=20)
    ([[0, 1, 2], [0, 3]], [[0, 1], [0, 2]])
    """
    groups: list[list[int]] = [list(range(left))]
    for column in range(left, len(widths)):
        if len(groups[-1]) > left and sum(widths[i] for i in groups[-1]) + widths[column] > room:
            groups.append(list(range(left)))
        groups[-1].append(column)
    return groups


# --- files ------------------------------------------------------------------------------------------------------


def check_file(path: Path, endings: Sequence[str] = ()) -> None:
    """Refuse a file that could not be written, before any work is done. Its folder is made when it is written.

    Args:
        endings: those that are known; none: any.

    Raises:
        OutputError: another ending; it is a folder; it, or its folder, may not be written.
    """
    if endings and path.suffix.lower() not in endings:
        raise OutputError(f"--out {path} must end in one of {', '.join(endings)}, which selects the format.")
    if path.is_dir():
        raise OutputError(f"--out {path} is a folder; give a file name.")
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir():
        raise OutputError(f"--out {path} cannot be written: {folder} is not a folder.")
    asked = path if path.exists() else folder
    if not os.access(asked, os.W_OK):
        raise OutputError(f"--out {path} cannot be written: no permission to write to {asked}.")
