"""Tab-separated texts, as people write them without thinking of quotes.

In a CSV a quote begins a field in which commas and newlines are text. Many files of texts with tabs know nothing of it:
a quote in them is a quote, and need not be closed. Where all lines have equally many tabs, each line is a row."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.data.encoding import read_bytes, to_utf8
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin

__all__ = ["TABBED_SUFFIXES", "read_tabbed"]

TABBED_SUFFIXES = (".tsv", ".tsv.gz")


def read_tabbed(path: Path, encoding: str | None = None) -> tuple[Any, Origin] | None:
    """A polars frame of text columns, and where its rows stand; None if the lines have different numbers of tabs, or
    the first does not name each column by itself: then it is CSV with tabs. Raises DataError if it is no text."""
    data = to_utf8(read_bytes(path), path, encoding)
    lines = data.split(b"\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines[:-1])]
    held = [(start, line.rstrip(b"\r")) for start, line in zip(starts, lines, strict=True) if line.strip()]
    rows = [line.decode("utf8").split("\t") for _, line in held]
    if len(rows) < 2 or len({len(row) for row in rows}) != 1:
        return None
    names = [_unquoted(name).strip() for name in rows[0]]
    if len(set(names)) != len(names) or not all(names):
        return None
    columns = zip(*rows[1:], strict=True)
    polars = require("polars")
    frame = polars.DataFrame(
        {
            name: [_unquoted(value) or None for value in column]
            for name, column in zip(names, columns, strict=True)
        },
        schema=dict.fromkeys(names, polars.String),
    )
    return frame, Origin(data, np.array([start for start, _ in held[1:]]))


def _unquoted(value: str) -> str:
    """A field without the quotes around it, if it is one that a CSV writer has quoted."""
    inner = value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return value
