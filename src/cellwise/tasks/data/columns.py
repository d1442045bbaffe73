"""Understanding one column: numbers and names. What cannot be understood is named with its line."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from cellwise.tasks.data.numerals import MISSING, parse_numbers
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin
from cellwise.tasks.errors import DataError

__all__ = ["as_text", "read_names", "read_numbers"]

LARGEST = 1e150  # its square is still a number


def read_numbers(
    column: Any, name: str, origin: Origin, decimal: str | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """A narwhals column as float64 (R,), NaN where missing, and what to say of it. DataError if a value is no
    number or infinite."""
    narwhals = require("narwhals")
    notes: tuple[str, ...] = ()
    if column.dtype.is_numeric() or column.dtype == narwhals.Boolean:
        values = np.array(column.cast(narwhals.Float64).to_numpy(), dtype=np.float64)
    else:
        text = as_text(column, name)
        missing = text.str.to_lowercase().is_in(MISSING).fill_null(True)
        parsed, notes = parse_numbers(text.set(missing, None), name, origin, decimal)
        values = parsed.fill_null(float("nan")).to_numpy().copy()
    huge = np.abs(values) > LARGEST
    if huge.any():
        row = int(huge.argmax())
        what = "an infinite value" if np.isinf(values[row]) else f"{values[row]:g}, too much to compute with,"
        raise DataError(
            f"{origin.column(name)} holds {what} at {origin.where(row)}; mend it or leave it empty"
        )
    return values, notes


def read_names(column: Any, name: str, origin: Origin) -> tuple[np.ndarray, bool]:
    """A narwhals column of series names as str (R,), and whether they were integers."""
    if column.dtype.is_nested() or column.dtype == require("narwhals").Binary:
        raise DataError(
            f"column {name!r} has type {column.dtype}, which names no series; write names as text"
        )
    texts = column.cast(require("narwhals").String)
    empty = column.is_nan() if column.dtype.is_float() else texts == ""
    missing = (texts.is_null() | empty.fill_null(False)).to_numpy()
    if missing.any():
        raise DataError(f"column {name!r} names no series at {origin.where(int(missing.argmax()))}")
    replaced = texts.str.contains("\ufffd", literal=True).to_numpy()
    if replaced.any():
        raise DataError(
            f"column {name!r} holds letters that an earlier conversion has lost, at "
            f"{origin.where(int(replaced.argmax()))}; names that differ in them would be one: export the data again"
        )
    return texts.to_numpy().astype(object), bool(column.dtype.is_integer())


def as_text(column: Any, name: str) -> Any:
    """A polars text column; python objects (numbers, dates) are written out first."""
    polars = require("polars")
    if column.implementation.is_polars() and column.dtype == require("narwhals").String:
        return column.to_native().str.strip_chars()
    values = [None if value is None else str(value) for value in column.to_list()]
    if all(value is None for value in values) and not re.search(
        "str|object", str(column.dtype), re.IGNORECASE
    ):
        raise DataError(f"column {name!r} has type {column.dtype}, which is neither text nor number")
    return polars.Series(values, dtype=polars.String).str.strip_chars()
