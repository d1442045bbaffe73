"""How a cell is named on the command line: by its name, or as FILE.py:Class for one of the user's own; behind either
its options may stand in brackets, narx(delays=5).
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import click

from cellwise import cells
from cellwise.cells.base import Cell
from cellwise.cli.cell_file import CellFileError, read_cell_file
from cellwise.tasks.member_cells import JOIN, joined_name

__all__ = ["HELP", "CellFileError", "cell_argument", "cell_of", "complete"]

HELP = (
    "A cell's name (see `cellwise cells`), or FILE.py:Class for one of your own; with options 'rhn(depth=5)'."
)
# What may stand before the brackets, which no file's name ends: FILE.py:Class or a name.
_WITH_OPTIONS = re.compile(r"((?:.*\.py:)?[^():]+)\((.*)\)", re.DOTALL)


def cell_of(text: str) -> Cell:
    """The cell that a person named, its equations read. A FILE.py is run as Python, so it must be one's own.

    Raises:
        UnknownCellError: no cell has this name.
        CellFileError: the file cannot be run, or what was named in it is no cell.
        CellError: its definition or its equations are wrong, or it has no such options.
    """
    named, options = _options(text)
    file, name = _parts(named)
    cell = read_cell_file(Path(file)).find(name) if file else cells.get(named)
    if options:
        cell = type(cell)(**{**cell.options, **options})
    elif not file:
        return cell
    # Here, so that a mistake is said before anything else, and what step prints is no result of ours.
    with contextlib.redirect_stdout(sys.stderr):
        _ = cell.graph
    return cell


def cell_argument(text: str) -> str | Cell | tuple[Cell, ...]:
    """What an estimator is given: the name of a known cell, one's own cell itself, or of several joined by "+" their
    names or the cells.

    Raises:
        CellwiseError: as `cell_of`.
    """
    if not _names_several(text):
        cell = cell_of(text)
        return cell.name if _is_name(text) else cell
    several = [each.strip() for each in text.split(JOIN)]
    found = tuple(cell_of(each) for each in several)
    return joined_name(found) if all(map(_is_name, several)) else found


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names that a word may become, for the shell."""
    return [name for name in cells.names() if name.startswith(incomplete)]


def _is_name(text: str) -> bool:
    """Whether a text is a cell's name alone, which says all of it."""
    named, options = _options(text)
    return not options and not _parts(named)[0]


def _options(text: str) -> tuple[str, dict[str, Any]]:
    """What stands before the brackets, and the options in them: numbers, texts, True and False."""
    match = _WITH_OPTIONS.fullmatch(text.strip())
    if match is None:
        return text, {}
    named, inside = match.groups()
    try:
        call = ast.parse(f"cell({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError(inside)
        if any(each.arg is None for each in call.keywords):
            raise ValueError(inside)
        return named, {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError):
        raise CellFileError(
            f"'{text}' names no cell: in brackets stand its options, as in {named}(rate=0.5) or {named}(rate='H / 4')."
        ) from None


def _names_several(text: str) -> bool:
    """Whether the sign joins cells here, and is not part of one's name or of the path of its file."""
    if JOIN not in text or text in cells.names():
        return False
    file, name = _parts(text)
    return JOIN in name or not (file and Path(file).is_file())


def _parts(text: str) -> tuple[str, str]:
    """The file and the name in it; without a file, two empty texts."""
    if text.endswith(".py"):
        return text, ""
    file, colon, name = text.rpartition(":")
    if not colon:
        return "", ""
    if not file.endswith(".py"):
        # FILE:Class, as one writes a module; or a path that only lacks its ending.
        with_ending = f"{file}.py"
        if Path(with_ending).is_file():
            raise CellFileError(f"'{text}' names no file; did you mean {with_ending}:{name}?")
        raise CellFileError(
            f"'{text}' names no cell; one of your own is FILE.py:Class, such as mine.py:Mine."
        )
    return file, name
