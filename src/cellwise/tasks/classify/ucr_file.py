"""Files of the UCR archive: a line a series, its class first and then its values, without a header.

Series that end early are filled up with NaN (Dau et al. 2019, "The UCR time series archive")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellwise.tasks.data.encoding import GZIP, read_bytes, to_utf8
from cellwise.tasks.errors import DataError

__all__ = ["UCR_SUFFIXES", "UcrFile", "read_ucr"]

UCR_SUFFIXES = (".tsv", ".tsv.gz", ".txt", ".csv")
FEWEST = 4  # numbers in a line: a class and some values
NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?nan", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class UcrFile:
    """values: arrays (T,) with NaN where missing; labels: the class of each, a whole number as text."""

    values: list[np.ndarray]
    labels: list[str]


def read_ucr(path: Path, encoding: str | None = None, *, is_expected: bool = False) -> UcrFile | None:
    """Read a file of numbers alone, of which the first in each line is whole and, unless such a file is expected,
    stands in several lines.

    None for any other file, also for one whose first line only counts its columns. DataError names a line that holds
    something else after lines of numbers."""
    with path.open("rb") as file:  # most files are seen to be others without reading them whole
        begin = file.read(64).lstrip()
    if not (begin.startswith(GZIP) or begin[:1] in b"+-.0123456789nN"):
        return None
    raw = read_bytes(path)
    first, _, rest = raw.lstrip().partition(b"\n")
    second = rest.lstrip().partition(b"\n")[0]
    if not _are_numbers(first) or not (_are_numbers(second) or (is_expected and not second)):
        return None
    rows = []
    for number, line in enumerate(to_utf8(raw, path, encoding).splitlines(), 1):
        if line.strip():
            try:
                rows.append(np.array(_cells(line), dtype=np.float64))
            except ValueError as error:
                bad = str(error).partition(":")[2].strip()
                raise DataError(f"{path}: line {number} holds {bad}, which is no number") from error
    classes = np.array([row[0] for row in rows])
    if not (np.isfinite(classes).all() and (classes == classes.round()).all()):
        return None
    if (len(np.unique(classes)) == len(rows) and not is_expected) or _counts_columns(rows[0]):
        return None
    return UcrFile([row[1:] for row in rows], [str(int(each)) for each in classes])


def _cells(line: bytes) -> list[bytes]:
    """Between tabs, commas, or spaces."""
    return next((line.strip().split(mark) for mark in (b"\t", b",") if mark in line), line.split())


def _are_numbers(line: bytes) -> bool:
    cells = _cells(line)
    return len(cells) >= FEWEST and all(NUMBER.fullmatch(cell.strip()) for cell in cells)


def _counts_columns(row: Sequence[float] | np.ndarray) -> bool:
    """Whether it is 0, 1, 2, ... or 1, 2, 3, ...: the header of a frame whose columns have no names."""
    return bool((np.diff(row) == 1).all() and row[0] in (0, 1))
