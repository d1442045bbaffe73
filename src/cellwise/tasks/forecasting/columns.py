"""Understanding one column: numbers, times, names. What cannot be understood is named with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellwise.tasks.forecasting.errors import DataError
from cellwise.tasks.forecasting.extras import need

__all__ = ["Times", "read_names", "read_numbers", "read_times"]

MISSING = ("", "na", "n/a", "nan", "null", "none", "nat", "?", "-", ".")

# tried in this order; the first that reads every value is taken
FORMATS = (
    "%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f",
    "%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y%m%d", "%Y%m%d %H:%M:%S",
    "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S",
    "%d %b %Y", "%d-%b-%Y", "%b %d %Y", "%B %d %Y", "%d %B %Y",
)  # fmt: skip
ZONED_FORMATS = ("%Y-%m-%d %H:%M:%S%#z", "%Y-%m-%d %H:%M%#z", "%Y-%m-%d %H:%M:%S%.f%#z")
# day and month may be swapped: taken only if one of the two readings fails
SWAPPABLE = (
    ("%m/%d/%Y", "%d/%m/%Y"),
    ("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"),
    ("%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S"),
    ("%m-%d-%Y", "%d-%m-%Y"),
    ("%m-%d-%Y %H:%M", "%d-%m-%Y %H:%M"),
    ("%m-%d-%Y %H:%M:%S", "%d-%m-%Y %H:%M:%S"),
    ("%m/%d/%y", "%d/%m/%y"),
)  # fmt: skip
MONTH_FORMATS = ("%Y-%m", "%Y/%m", "%Y %b", "%b %Y", "%Y %B", "%B %Y", "%b-%Y", "%b-%y", "%YM%m", "%Y %m")


@dataclass(frozen=True, eq=False)
class Times:
    """values: datetime64[us] or int64 (R,); kind: "date", "datetime" or "integer"; zone: name of the time
    zone or None."""

    values: np.ndarray
    kind: str
    zone: str | None = None
    wall_clock: bool = False


def where(row: int, from_text: bool) -> str:
    """How a person finds a row: the line of a text file (the header is line 1), else the row counted from
    0."""
    return f"line {row + 2}" if from_text else f"row {row}"


def read_numbers(column: Any, name: str, from_text: bool) -> np.ndarray:
    """A narwhals column as float64 (R,), NaN where missing. DataError if a value is no number or infinite."""
    polars = need("polars")
    narwhals = need("narwhals")
    if column.dtype.is_numeric() or column.dtype == narwhals.Boolean:
        values = np.array(column.cast(narwhals.Float64).to_numpy(), dtype=np.float64)
    else:
        text = _as_text(column, name)
        missing = text.str.to_lowercase().is_in(MISSING).fill_null(True)
        parsed = text.cast(polars.Float64, strict=False)
        bad = (parsed.is_null() & ~missing).to_numpy()
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"column {name!r} is not numeric: {where(row, from_text)} holds {text[row]!r}")
        values = parsed.fill_null(float("nan")).to_numpy().copy()
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"column {name!r} holds an infinite value at {where(row, from_text)}; mend it or leave it empty"
        )
    return values


def read_names(column: Any, name: str, from_text: bool) -> tuple[np.ndarray, bool]:
    """A narwhals column of series names as str (R,), and whether they were integers."""
    missing = column.is_null().to_numpy()
    if missing.any():
        raise DataError(f"column {name!r} names no series at {where(int(missing.argmax()), from_text)}")
    texts = column.cast(need("narwhals").String).to_numpy().astype(object)
    return texts, bool(column.dtype.is_integer())


def read_times(column: Any, name: str, from_text: bool) -> Times:
    """A narwhals column of dates, times or whole numbers. DataError names the first value that is none."""
    narwhals = need("narwhals")
    missing = column.is_null().to_numpy()
    if missing.any():
        raise DataError(f"column {name!r} has no time at {where(int(missing.argmax()), from_text)}")
    if column.dtype == narwhals.Date:
        return Times(_microseconds(column.to_numpy()), "date")
    if column.dtype == narwhals.Datetime:
        return _read_datetimes(column)
    if column.dtype.is_integer():
        return _from_integers(column.to_numpy().astype(np.int64))
    if column.dtype.is_float():
        values = column.to_numpy()
        if not (np.isfinite(values) & (values == np.floor(values))).all():
            raise DataError(f"column {name!r} holds fractions; times must be dates or whole numbers")
        return _from_integers(values.astype(np.int64))
    return _read_text_times(_as_text(column, name), name, from_text)


def _read_datetimes(column: Any) -> Times:
    zone = column.dtype.time_zone
    if zone is None:
        return _dated(_microseconds(column.to_numpy()))
    # days in a zone keep their wall clock, hours keep the true distance: a day of 23 hours fits neither
    # otherwise
    wall = _microseconds(column.dt.replace_time_zone(None).to_numpy())
    if len(np.unique(wall - wall.astype("datetime64[D]"))) == 1:
        return Times(wall, "datetime", zone, wall_clock=True)
    return Times(
        _microseconds(column.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy()),
        "datetime",
        zone,
    )


def _from_integers(values: np.ndarray) -> Times:
    """Plain numbers, unless all of them read as YYYYMMDD."""
    if ((values >= 1800_01_01) & (values <= 2200_12_31)).all():
        month, day = values // 100 % 100, values % 100
        if ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
            text = np.array([f"{v // 10000:04d}-{v // 100 % 100:02d}-{v % 100:02d}" for v in values.tolist()])
            return Times(text.astype("datetime64[us]"), "date")
    return Times(values, "integer")


def _read_text_times(text: Any, name: str, from_text: bool) -> Times:
    polars = need("polars")
    if text.str.contains(r"^[+-]?\d{1,18}$").all():
        return _from_integers(text.cast(polars.Int64).to_numpy())
    text = text.str.replace(r"(\d)T(\d)", "${1} ${2}")
    zoned = text.str.replace(r"Z$", "+00:00")
    read = polars.Series([None] * len(text), dtype=polars.Datetime("us"))
    for form in FORMATS:  # one column may mix them: none can be taken for another
        read = read.fill_null(text.str.to_datetime(form, strict=False, time_unit="us"))
        if read.null_count() == 0:
            return _dated(read.to_numpy())
    for form in ZONED_FORMATS:
        parsed = zoned.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC")
        if parsed.null_count() == 0:
            return Times(parsed.dt.replace_time_zone(None).to_numpy(), "datetime", "UTC")
    for form in MONTH_FORMATS:
        parsed = ("01 " + text).str.to_datetime("%d " + form, strict=False, time_unit="us")
        if parsed.null_count() == 0:
            return _dated(parsed.to_numpy())
    for pair in SWAPPABLE:
        readings = [text.str.to_datetime(form, strict=False, time_unit="us") for form in pair]
        whole = [parsed for parsed in readings if parsed.null_count() == 0]
        if len(whole) == 2 and (whole[0] != whole[1]).any():
            raise DataError(
                f"the dates in column {name!r}, such as {text[0]!r}, may mean day/month or month/day; "
                "write them as YYYY-MM-DD"
            )
        if whole:
            return _dated(whole[0].to_numpy())
    row = int(read.is_null().arg_max())
    raise DataError(
        f"column {name!r} holds {text[row]!r} at {where(row, from_text)}, which is neither a date nor a whole "
        "number; write dates as YYYY-MM-DD or YYYY-MM-DD HH:MM:SS"
    )


def _as_text(column: Any, name: str) -> Any:
    """A polars text column; python objects (numbers, dates) are written out first."""
    polars = need("polars")
    values = [None if value is None or value != value else str(value) for value in column.to_list()]
    if all(value is None for value in values) and not re.search(
        "str|object", str(column.dtype), re.IGNORECASE
    ):
        raise DataError(f"column {name!r} has type {column.dtype}, which is neither text nor number")
    return polars.Series(values, dtype=polars.String).str.strip_chars()


def _dated(values: np.ndarray) -> Times:
    values = _microseconds(values)
    midnight = (values == values.astype("datetime64[D]")).all()
    return Times(values, "date" if midnight else "datetime")


def _microseconds(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).astype("datetime64[us]")
