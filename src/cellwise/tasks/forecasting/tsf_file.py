"""Files in the .tsf format of the Monash archive: a header of `@` lines, then a series a line.

`T1:1972-01-01 00-00-00:3600,7700,?` is a series with its name, its first time and its values, of which `?` is a missing
one; `@frequency` says how far apart they are (Godahewa et al. 2021, "Monash Time Series Forecasting Archive")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellwise.tasks.data.encoding import read_bytes, to_utf8
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown
from cellwise.tasks.errors import DataError

if TYPE_CHECKING:
    from cellwise.tasks.forecasting.frames import Columns

__all__ = ["TSF_SUFFIXES", "read_tsf"]

TSF_SUFFIXES = (".tsf", ".tsf.gz")
NAME, STRING, DATE = "series_name", "string", "date"
MONTHS = {"monthly": 1, "quarterly": 3, "yearly": 12}
SECONDS = {
    "secondly": 1,
    "minutely": 60,
    "half_hourly": 1800,
    "hourly": 3600,
    "daily": 86400,
    "weekly": 604800,
}
UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}  # as in 10_minutes


@dataclass(frozen=True)
class _Header:
    """attributes: names and types of what stands before the values; frequency: as it is written, "" if it is not;
    lines: how many stand before the data."""

    attributes: tuple[tuple[str, str], ...]
    frequency: str
    lines: int

    def index(self, kind: str) -> int | None:
        """The first attribute of a type."""
        return next((i for i, (_, own) in enumerate(self.attributes) if own == kind), None)


def read_tsf(path: Path, columns: Columns) -> tuple[Any, Origin]:
    """A polars frame in long format with the columns' names for series, time and target; and where its rows stand.

    Without a first time or a frequency, the times of a series are numbered from 0. Raises DataError, which names the
    line that cannot be understood."""
    raw = to_utf8(read_bytes(path), path, columns.text.encoding)
    lines = raw.decode("utf8").splitlines(keepends=True)
    header = _header(lines, path)
    offset = sum(len(line.encode("utf8")) for line in lines[: header.lines])
    names: list[str] = []
    times: list[np.ndarray] = []
    values: list[np.ndarray] = []
    starts: list[np.ndarray] = []
    begun, spaced = header.index(DATE), _spacing(header.frequency, path)
    named = next((i for i, (name, _) in enumerate(header.attributes) if name.lower() == NAME), None)
    named = header.index(STRING) if named is None else named
    for number, line in enumerate(lines[header.lines :], header.lines + 1):
        if line.strip() and not line.lstrip().startswith("#"):
            where = f"{path}: line {number}"
            *before, last = line.strip().split(":")
            if len(before) != len(header.attributes):
                raise DataError(
                    f"{where} has {len(before)} attributes before its values, but the header names "
                    f"{len(header.attributes)}"
                )
            series = _numbers(last, where)
            steps = np.arange(len(series))
            begin = None if begun is None or spaced is None else _time(before[begun], where)
            names.append(str(len(names)) if named is None else before[named].strip())
            times.append(steps if begin is None or spaced is None else _times(begin, steps, spaced))
            values.append(series)
            starts.append(np.full(len(series), offset))
        offset += len(line.encode("utf8"))
    if not values:
        raise DataError(f"{path} has no series after @data")
    _refuse_repeated(names, path)
    made = {
        columns.id: np.repeat(np.array(names, dtype=object), [len(each) for each in values]),
        columns.time: np.concatenate(times),
        columns.target: np.concatenate(values),
    }
    polars = require("polars")
    frame = polars.DataFrame({name: polars.Series(each.tolist()) for name, each in made.items()})
    if made[columns.time].dtype.kind == "M":
        frame = frame.with_columns(polars.Series(columns.time, made[columns.time]))
    return frame.with_columns(polars.col(columns.target).fill_nan(None)), Origin(raw, np.concatenate(starts))


def _header(lines: Sequence[str], path: Path) -> _Header:
    attributes: list[tuple[str, str]] = []
    frequency = ""
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0][0] != "@":
            continue
        kind = words[0].lower()
        if kind == "@data":
            return _Header(tuple(attributes), frequency, number)
        if kind == "@attribute":
            if len(words) != 3:
                raise DataError(
                    f"{path}: line {number} is to be @attribute, a name and a type, not {shown(line.strip())}"
                )
            attributes.append((words[1], words[2].lower()))
        if kind == "@frequency" and len(words) > 1:
            frequency = words[1].lower()
    raise DataError(f"{path} is no .tsf file: it has no line @data before its series")


def _spacing(frequency: str, path: Path) -> tuple[int, str] | None:
    """Months ("M") or seconds ("s") from one value to the next; None if the file does not say."""
    if not frequency:
        return None
    if frequency in MONTHS:
        return MONTHS[frequency], "M"
    if frequency in SECONDS:
        return SECONDS[frequency], "s"
    several = re.fullmatch(r"(\d+)_?([a-z]+?)s?", frequency)
    if several is None or several.group(2) not in UNITS:
        known = ", ".join((*SECONDS, *MONTHS, "10_minutes"))
        raise DataError(f"{path} has the frequency {shown(frequency)}, which is none of {known}")
    return int(several.group(1)) * UNITS[several.group(2)], "s"


def _time(text: str, where: str) -> np.datetime64:
    day, _, clock = text.strip().partition(" ")
    try:
        return np.datetime64(f"{day}T{clock.replace('-', ':') or '00:00:00'}", "us")
    except ValueError as error:
        raise DataError(
            f"{where} begins at {shown(text)}, which is no time such as 1972-01-01 00-00-00"
        ) from error


def _times(begin: np.datetime64, steps: np.ndarray, spaced: tuple[int, str]) -> np.ndarray:
    count, unit = spaced
    if unit == "s":
        return begin + steps * np.timedelta64(count * 1_000_000, "us")
    month = begin.astype("datetime64[M]")
    day = begin - month.astype("datetime64[us]")
    months = month + steps * count
    last = (months + 1).astype("datetime64[us]") - np.timedelta64(1, "D")
    within = day % np.timedelta64(1, "D")
    return np.minimum(
        months.astype("datetime64[us]") + day, last + within
    )  # the 31st is the 30th of a shorter month


def _numbers(text: str, where: str) -> np.ndarray:
    words = [word.strip() for word in text.split(",")]
    try:
        return np.array([np.nan if word in ("?", "NaN", "nan") else float(word) for word in words])
    except ValueError as error:
        bad = str(error).partition(":")[2].strip()
        raise DataError(f"{where} holds {bad}, which is no number") from error


def _refuse_repeated(names: Sequence[str], path: Path) -> None:
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{path} has two series named {shown(twice)}; each needs a name of its own")
