"""Pairs in a table: CSV, JSON Lines, Excel or Parquet, with a column of sources and one of targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cellwise.tasks.data.files import read_file
from cellwise.tasks.data.json_lines import JSON_SUFFIXES, read_json_lines
from cellwise.tasks.data.origin import Origin, shown_names
from cellwise.tasks.data.text_file import text_blocks
from cellwise.tasks.errors import DataError

__all__ = ["is_table", "read_columns"]

SUFFIXES = (".csv", ".csv.gz", ".xlsx", ".xlsm", ".parquet", ".pq", *JSON_SUFFIXES)
NAMES = ("source", "target")


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name. One named .csv whose first line has a single tab, and so is a pair, is
    none."""
    name = path.name.lower()
    if not name.endswith(SUFFIXES) or not path.is_file():
        return False
    return not (name.endswith(".csv") and next(text_blocks(path), "").partition("\n")[0].count("\t") == 1)


def read_columns(path: Path) -> tuple[list[str], list[str] | None]:
    """Sources and targets: the columns of these names, else those of a table of two. Of a table of one column they are
    sources without targets.

    Rows without any text are left out. Raises DataError."""
    origin = Origin()
    if path.name.lower().endswith(JSON_SUFFIXES):
        frame = read_json_lines(path)
    else:
        frame, origin = read_file(path)
    names = list(frame.columns)
    if len(names) > len(NAMES):
        if not set(NAMES) <= set(names):
            raise DataError(
                f"{path} has the columns {shown_names(names)}; of more than two, one is to be named 'source' and one "
                "'target'"
            )
        names = list(NAMES)
    elif set(names) == set(NAMES):
        names = list(NAMES)
    columns = [[_text(value) for value in frame[name].to_list()] for name in names]
    if len(columns) == 1:
        return list(filter(None, columns[0])), None
    kept = [(row, a, b) for row, (a, b) in enumerate(zip(*columns, strict=True)) if a or b]
    for row, source, target in kept:
        if not source or not target:
            raise DataError(f"{path} has a {NAMES[bool(source)]} without text at {origin.where(row)}")
    return [a for _, a, _ in kept], [b for _, _, b in kept]


def _text(value: Any) -> str:
    """A cell in one line."""
    return "" if value is None else " ".join(str(value).split())
