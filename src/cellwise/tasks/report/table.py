"""A table of figures in a form that a person reads, on a page or on a terminal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ReportTable", "TableCell", "TableRow", "figure"]


@dataclass(frozen=True)
class TableCell:
    """A figure as text, and whether it is the best of its column."""

    text: str
    wins: bool = False


@dataclass(frozen=True)
class TableRow:
    """A named row of figures."""

    name: str
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class ReportTable:
    """A table. `first` heads the column of the rows' names, `columns` the others; `words`: those that hold words, not
    figures, and so begin at the left."""

    first: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    words: tuple[int, ...] = ()


def figure(value: float) -> str:
    """A number with as many digits as one reads: 243.6, 0.528, 12,345; by powers of ten where those do not show it.

    >>> [figure(v) for v in (243.635, 0.52757, 12345.6, float("nan"), 0.0, 3.21e-9, -4.56e17)]
    ['243.6', '0.528', '12,346', '–', '0', '3.21e-09', '-4.56e+17']
    """
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if not 1e-5 <= abs(value) < 1e15:
        return f"{value:.3g}"
    digits = max(0, min(6, 3 - int(np.floor(np.log10(abs(value))))) - (abs(value) < 10))
    return f"{value:,.{digits}f}"
