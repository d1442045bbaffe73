"""Whole numbers in the column of times: steps that are merely counted, or dates in disguise.

202401, 20240107 and seconds since 1970 are dates; 0, 1, 2 and 1990, 1991 are steps. What may be either is a
question to the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cellwise.tasks.data.date_formats import DateFormat
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin
from cellwise.tasks.errors import DataError

__all__ = ["Dates", "read_whole_numbers"]

# digits -> formats with the whole year, tried in this order
FORMATS = {
    6: ("%Y%m",),
    7: ("%Y%j",),
    8: ("%Y%m%d", "%d%m%Y", "%m%d%Y"),
    10: ("%Y%m%d%H",),
    12: ("%Y%m%d%H%M",),
    14: ("%Y%m%d%H%M%S",),
}
# dates only where counted steps would jump
SHORT = {4: ("%y%m",), 5: ("%Y%q",), 6: ("%y%m%d", "%d%m%y", "%m%d%y")}
MICROSECONDS = {"seconds": 10**6, "milliseconds": 10**3, "microseconds": 1}
EARLIEST, LATEST = 10**8, 7_258_118_400  # seconds since 1970: 1973-03-03 and 2200-01-01
# a spreadsheet's numbers of days, counted from 1899-12-30: 1980 to 2069
SPREADSHEET = 29_221, 62_093
STEPS = "give freq='1' (--freq 1) if these are merely counted steps, or write dates as YYYY-MM-DD"


@dataclass(frozen=True, eq=False)
class Dates:
    """times (R,) datetime64[us], and what the numbers were, in words."""

    times: np.ndarray
    words: str


def read_whole_numbers(
    values: np.ndarray, name: str, origin: Origin, runs_forward: Callable[[np.ndarray], bool]
) -> Dates | None:
    """The dates that int64 numbers (R,) are, or None for counted steps. DataError where they may be either."""
    digits = _digits(values)
    if digits == 0:
        return None
    found = _in_formats(values, FORMATS.get(digits, ()))
    if len(found) > 1:
        raise DataError(_question(values, name, origin, found))
    if found:
        return found[0]
    if digits >= 9:
        return _since_1970(values)
    if digits in SHORT and (np.diff(np.unique(values)) != 1).any():
        found = [one for one in _in_formats(values, SHORT[digits]) if runs_forward(one.times)]
        if len(found) > 1:
            raise DataError(_question(values, name, origin, found))
        if found:
            return found[0]
    _refuse_disguised(values, digits, name, origin)
    return None


def _digits(values: np.ndarray) -> int:
    """How many digits all the numbers have; 0 if they differ or some are negative."""
    low, high = int(values.min()), int(values.max())
    return len(str(low)) if low >= 0 and len(str(low)) == len(str(high)) else 0


def _in_formats(values: np.ndarray, forms: tuple[str, ...]) -> list[Dates]:
    polars = require("polars")
    made: list[Dates] = []
    text = polars.Series(values).cast(polars.String)
    for form in forms:
        if not DateFormat(form).matches(str(values[0])):
            continue
        reading = DateFormat(form).read(text)
        if reading.whole and all((reading.wall != other.times).any() for other in made):
            made.append(Dates(reading.wall, form))
    return made


def _since_1970(values: np.ndarray) -> Dates | None:
    for unit, size in MICROSECONDS.items():
        per_second = 10**6 // size
        if values.min() >= EARLIEST * per_second and values.max() <= LATEST * per_second:
            return Dates((values * size).astype("datetime64[us]"), f"{unit} since 1970-01-01 in UTC")
    nano = 10**9
    if values.min() >= EARLIEST * nano and values.max() <= LATEST * nano:
        return Dates((values // 1000).astype("datetime64[us]"), "nanoseconds since 1970-01-01 in UTC")
    return None


def _refuse_disguised(values: np.ndarray, digits: int, name: str, origin: Origin) -> None:
    """What may be dates, but of a kind that is not read."""
    first = f"{values[0]} at {origin.where(0)}"
    if digits == 5 and values.min() >= SPREADSHEET[0] and values.max() <= SPREADSHEET[1]:
        day = np.datetime64("1899-12-30") + int(values[0])
        raise DataError(
            f"the whole numbers of column {name!r} may be a spreadsheet's dates ({first} would be {day}); {STEPS}"
        )
    year, week = values // 100, values % 100
    jumps = (np.diff(np.unique(values)) != 1).any()
    if digits == 6 and jumps and ((year >= 1900) & (year <= 2100) & (week >= 1) & (week <= 53)).all():
        raise DataError(
            f"the whole numbers of column {name!r}, such as {first}, look like years and weeks; write weeks as "
            "2024-W01 (ISO 8601) or by their first day, or give freq='1' (--freq 1) if these are merely counted steps"
        )


def _question(values: np.ndarray, name: str, origin: Origin, found: list[Dates]) -> str:
    one, other = found[:2]
    row = int((one.times != other.times).argmax())
    days = [str(dates.times[row].astype("datetime64[D]")) for dates in (one, other)]
    return (
        f"the whole numbers of column {name!r} can be read in two ways: {values[row]} at {origin.where(row)} is "
        f"{days[0]} as {one.words} and {days[1]} as {other.words}; say which with date_format={one.words!r} or "
        f"date_format={other.words!r} (--date-format)"
    )
