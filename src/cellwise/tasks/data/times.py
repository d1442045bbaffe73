"""The column of times: dates, times of day, or whole numbers.

A format is taken only if it reads every row. Where two read every row and do not agree, it is a question to the
user, never a guess; and whatever was read that is not ISO 8601 is said in a note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cellwise.tasks.data.columns import as_text
from cellwise.tasks.data.date_formats import FIRST_YEAR, LAST_YEAR, DateFormat, Reading
from cellwise.tasks.data.numerals import MISSING
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown
from cellwise.tasks.data.whole_numbers import read_whole_numbers
from cellwise.tasks.errors import DataError

__all__ = ["Times", "read_times"]

ISO = "%Y-%m-%d"
ASK = "say which with date_format={0!r} or date_format={1!r} (--date-format)"
# written out: no row can be read as another day
FULL = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y %m %d", "%Y%m%d", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%S%z", "%Y-%j",
    "%d.%m.%Y", "%d %b %Y", "%b %d %Y", "%Y %b %d", "%a %d %b %Y", "%a %b %d %Y",
    "%Y-%m", "%Y/%m", "%Y.%m", "%Y %m", "%YM%m", "%m/%Y", "%m-%Y", "%m.%Y", "%b %Y", "%Y %b",
    "%YQ%q", "%Y-Q%q", "%Y Q%q", "%Y/Q%q", "Q%q %Y", "Q%q-%Y", "Q%q/%Y", "%qQ%Y",
    "%G-W%V", "%GW%V", "%G W%V", "%G-W%V-%u", "%GW%V%u",
)  # fmt: skip
# day and month may be swapped
SWAPPABLE = tuple(
    form for mark in ("/", "-", " ", "") for form in (f"%d{mark}%m{mark}%Y", f"%m{mark}%d{mark}%Y")
)
# the year has two digits, and a day or month may be meant by them
SHORT = (
    "%d.%m.%y", "%y.%m.%d", "%d %b %y", "%b %d %y", "%b %y",
    *(f for mark in ("/", "-", "") for f in (f"%d{mark}%m{mark}%y", f"%m{mark}%d{mark}%y", f"%y{mark}%m{mark}%d")),
)  # fmt: skip
FORMATS = tuple(DateFormat(text) for text in (*FULL, *SWAPPABLE, *SHORT))
OF_LEAP_YEAR = DateFormat("%Y %b %d")
ZONE_NAME = r"\d\s*\[?([A-Za-z]+/[A-Za-z_/]+|[A-Z]{3,4})\]?$"
WHOLE_NUMBER, PADDED = r"^[+-]?(?:\d{1,18}|[1-8]\d{18})(?:\.0+)?$", r"^0\d"
NUMBER = r"^[+-]?\d+\.\d+$"
SAMPLES = 5  # rows that decide which formats are tried on all
LAST_ROWS = 5  # among which remarks stand
LONGEST = 100  # no date has more characters


@dataclass(frozen=True, eq=False)
class Times:
    """values: datetime64[us] or int64 (R,); kind: "date", "datetime" or "integer"; zone: name of the time
    zone or None; form: the format of text that was read, if it was not ISO 8601; notes: what to say of it."""

    values: np.ndarray
    kind: str
    zone: str | None = None
    wall_clock: bool = False
    form: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TimeColumn:
    """What is to be understood, and what helps to: the name of the column; where its rows came from; the series
    of each row; whether plain numbers are meant, since the frequency is one; the format, if the user told it;
    that of the data that was learned, which settles what is open."""

    name: str
    origin: Origin
    series: Callable[[], np.ndarray]
    plain: bool = False
    form: str | None = None
    learned: str | None = None

    def runs_forward(self, values: np.ndarray) -> bool:
        """Whether the times of every series only rise, or only fall, in the order of the rows."""
        _, code = np.unique(self.series(), return_inverse=True)
        order = np.argsort(code, kind="stable")
        steps = np.diff(values[order].astype(np.int64))[np.diff(code[order]) == 0]
        return bool((steps > 0).all() or (steps < 0).all())


def read_times(column: Any, about: TimeColumn) -> Times:
    """A narwhals column of dates, times or whole numbers. DataError names the first value that is none."""
    narwhals = require("narwhals")
    missing = column.is_null().to_numpy()
    if missing.any():
        raise DataError(f"column {about.name!r} has no time at {about.origin.where(int(missing.argmax()))}")
    zone = getattr(getattr(column.to_native(), "dtype", None), "tz", None)
    if zone is not None:  # pandas; narwhals knows no zone that has an underscore in its name
        native = column.to_native().dt
        wall, utc = native.tz_localize(None), native.tz_convert("UTC").dt.tz_localize(None)
        made = _in_zone(_microseconds(wall.to_numpy()), _microseconds(utc.to_numpy()), str(zone))
        return _checked(made, about)
    if column.dtype == narwhals.Date:
        return _checked(Times(_microseconds(column.to_numpy()), "date"), about)
    if column.dtype == narwhals.Datetime:
        return _checked(_read_datetimes(column), about)
    if column.dtype.is_integer():
        if int(column.max()) >= 2**63 or int(column.min()) < -(2**63):
            raise DataError(
                f"column {about.name!r} holds whole numbers of more than 64 bits; count the times from 0"
            )
        return _from_numbers(column.to_numpy().astype(np.int64), about)
    if column.dtype.is_float():
        return _from_floats(column.to_numpy(), about)
    return _read_text(as_text(column, about.name), about)


def _read_datetimes(column: Any) -> Times:
    zone = column.dtype.time_zone
    if zone is None:
        return _dated(_microseconds(column.to_numpy()))
    wall = _microseconds(column.dt.replace_time_zone(None).to_numpy())
    utc = _microseconds(column.dt.convert_time_zone("UTC").dt.replace_time_zone(None).to_numpy())
    return _in_zone(wall, utc, zone)


def _in_zone(wall: np.ndarray, utc: np.ndarray, zone: str | None) -> Times:
    """Days in a zone keep their wall clock, hours keep the true distance: a day of 23 hours fits neither
    otherwise."""
    days = _same_time_of_day(wall, utc)
    if days is not None and zone is not None:
        return Times(days, "datetime", zone, wall_clock=True)
    if days is not None:
        note = "times have an offset from UTC; date and time of day are taken as they are written"
        return replace(_dated(days), wall_clock=True, notes=(note,))
    note = f"times are in the zone {zone or 'UTC'}; features of the time of day count in UTC"
    return Times(utc, "datetime", zone or "UTC", notes=(note,))


def _same_time_of_day(wall: np.ndarray, utc: np.ndarray) -> np.ndarray | None:
    """Wall times that all show one time of day, or None if they do not.

    Where the clocks skip that time, the row shows a later one: the same instant, in the offset before."""
    day = wall.astype("datetime64[D]").astype("datetime64[us]")
    within, counts = np.unique(wall - day, return_counts=True)
    regular = day + within[counts.argmax()]
    odd = wall != regular
    if odd.any():
        offsets = np.unique(wall - utc)
        if len(offsets) > 16:
            return None
        skipped = (regular[odd, None] - offsets == utc[odd, None]).any(axis=1)
        if not skipped.all():
            return None
    return regular


def _from_floats(values: np.ndarray, about: TimeColumn) -> Times:
    if not (np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**53)).all():
        raise DataError(
            f"column {about.name!r} holds fractions; times must be dates or whole numbers, and a spreadsheet's day "
            "numbers are to be written as dates"
        )
    return _from_numbers(values.astype(np.int64), about)


def _from_numbers(values: np.ndarray, about: TimeColumn) -> Times:
    if about.form is not None:
        polars = require("polars")
        return _in_format(polars.Series(values).cast(polars.String), about.form, about)
    if about.plain:
        return Times(values, "integer")
    found = read_whole_numbers(values, about.name, about.origin, about.runs_forward)
    if found is None:
        return Times(values, "integer")
    note = f"the whole numbers of {about.name} were read as {found.words} ({values[0]} is {_show(found.times[0])})"
    return replace(_dated(found.times), notes=(note,))


def _read_text(text: Any, about: TimeColumn) -> Times:
    polars = require("polars")
    missing = text.str.to_lowercase().is_in(MISSING)
    if missing.any():
        raise DataError(f"column {about.name!r} has no time at {about.origin.where(int(missing.arg_max()))}")
    if about.form is not None:
        return _in_format(text, about.form, about)
    numbers = text.str.contains(WHOLE_NUMBER).all()
    if numbers and (about.plain or not text.str.contains(PADDED).any()):
        return _from_numbers(text.str.replace(r"\.0+$", "").cast(polars.Int64).to_numpy(), about)
    quick = _read_iso(text)
    if quick is not None:
        return _checked(_dated(quick), about)
    readings = [form.read(text) for form in _candidates(text)]
    whole = [reading for reading in readings if reading.whole]
    if numbers and not whole:  # 001, 002 are counted steps
        return _from_numbers(text.cast(polars.Int64).to_numpy(), about)
    if not whole:
        raise DataError(_what_is_wrong(text, readings, about))
    chosen = _choose(text, whole, about)
    times = _times_of(chosen, text, about)
    if chosen.form.text == ISO:
        return times
    note = (
        f"times of {about.name} were read as {chosen.form.text} ({shown(text[0])} is {_show(chosen.wall[0])})"
    )
    return replace(times, form=chosen.form.text, notes=(*times.notes, note))


def _read_iso(text: Any) -> np.ndarray | None:
    """Text that is plainly ISO 8601, the common case, by the fast way; None if it is not."""
    length = text.str.len_bytes()
    if length[0] not in (10, 19) or not (length == length[0]).all():
        return None
    form, shape = (
        (ISO, r"^\d{4}-\d\d-\d\d$") if length[0] == 10 else (f"{ISO} %H:%M:%S", r"^\d{4}-\d\d-\d\d[ T]\d")
    )
    if not text.str.contains(shape).all():
        return None
    text = text.str.replace("T", " ", literal=True)
    parsed = text.str.to_datetime(form, strict=False, time_unit="us")
    return None if parsed.null_count() else parsed.to_numpy()


def _candidates(text: Any) -> list[DateFormat]:
    """The formats that some rows look like; which read all of them is seen later."""
    rows = np.unique(np.linspace(0, len(text) - 1, SAMPLES).astype(int))
    values = [text[int(row)][:LONGEST] for row in rows]
    return [form for form in FORMATS if any(form.matches(value) for value in values)]


def _choose(text: Any, whole: Sequence[Reading], about: TimeColumn) -> Reading:
    """The one reading of all, if there is one; readings of years of two digits that run to and fro give way to
    one that does not."""
    distinct: list[Reading] = []
    for reading in whole:
        if all((reading.wall != other.wall).any() for other in distinct):
            distinct.append(reading)
    known = [reading for reading in distinct if reading.form.text == about.learned]
    if known:
        return known[0]
    if len(distinct) > 1 and any("%y" in reading.form.text for reading in distinct):
        forward = [reading for reading in distinct if about.runs_forward(reading.wall)]
        distinct = forward or distinct
    if len(distinct) > 1:
        one, other = distinct[:2]
        row = int((one.wall != other.wall).argmax())
        ways = " and ".join(f"{_show(way.wall[row])} as {way.form.text}" for way in (one, other))
        raise DataError(
            f"the dates of column {about.name!r} can be read in two ways: {shown(text[row])} at "
            f"{about.origin.where(row)} is {ways}; {ASK.format(one.form.text, other.form.text)}, or write dates as "
            "YYYY-MM-DD"
        )
    if distinct[0].form.text == "%b %y":
        _refuse_days_without_year(text, distinct[0].wall, about)
    return distinct[0]


def _refuse_days_without_year(text: Any, months: np.ndarray, about: TimeColumn) -> None:
    """Jan-01, Jan-02 are days; Jan-15, Feb-15 are months, and so is what runs forward as months alone."""
    days = OF_LEAP_YEAR.read("2000 " + text)
    numbers = text.str.extract(r"(\d+)$")
    plainly_months = about.runs_forward(months) and not about.runs_forward(days.wall)
    if days.whole and numbers.n_unique() > 1 and not plainly_months:
        raise DataError(
            f"the dates of column {about.name!r}, such as {shown(text[0])}, may be months of a year or days without a "
            "year; say date_format='%b %y' (--date-format) for months, or write dates as YYYY-MM-DD"
        )


def _in_format(text: Any, form: str, about: TimeColumn) -> Times:
    """The format that the user told, and nothing else."""
    reading = DateFormat(form, anywhere=True).read(text)
    if not reading.whole:
        row = int((~reading.fits).argmax())
        raise DataError(
            f"column {about.name!r} holds {shown(text[row])} at {about.origin.where(row)}, which does not follow the "
            f"date format {form!r}"
        )
    return replace(_times_of(reading, text, about), form=form)


def _times_of(reading: Reading, text: Any, about: TimeColumn) -> Times:
    if reading.utc is None:
        return _dated(reading.wall)
    if reading.bare is not None and reading.bare.any():
        row = int(reading.bare.argmax())
        raise DataError(
            f"column {about.name!r} has an offset from UTC in some rows, but none in {shown(text[row])} at "
            f"{about.origin.where(row)}; give all of them one, or none"
        )
    return _in_zone(reading.wall, reading.utc, None)


def _what_is_wrong(text: Any, readings: Sequence[Reading], about: TimeColumn) -> str:
    """One sentence on the first row that the likeliest format does not read."""
    ways = "write dates as YYYY-MM-DD or YYYY-MM-DD HH:MM:SS"
    polars = require("polars")
    best = max(readings, key=lambda reading: int(reading.fits.sum()), default=None)
    fits = np.zeros(len(text), dtype=bool) if best is None else best.fits
    row = int((~fits).argmax())
    found = f"column {about.name!r} holds {shown(text[row])} at {about.origin.where(row)}"
    zone = polars.Series([text[row]]).str.extract(ZONE_NAME)[0]
    if zone and zone not in ("UTC", "GMT"):
        return f"{found}, with the name of a time zone, {zone}; write the offset, such as +01:00, or leave it out"
    year = polars.Series([text[row]]).str.extract(r"(?:^|\D)(\d{4})(?:\D|$)")[0]
    if (
        year
        and not FIRST_YEAR <= int(year) <= LAST_YEAR
        and DateFormat(ISO, anywhere=True).matches(text[row])
    ):
        return f"{found}, in the year {int(year)}; mend it (years lie from {FIRST_YEAR} to {LAST_YEAR})"
    if polars.Series([text[row]]).str.contains(NUMBER)[0]:
        return (
            f"{found}, a number with a fraction; a spreadsheet's day numbers and decimal years are to be written as "
            "dates, YYYY-MM-DD"
        )
    if _is_remark(text[row], row, len(text)) and fits.any():
        return f"{found}, which is no time; leave the row out if it is a remark on the table"
    if best is not None and fits.any():
        first = int(fits.argmax())
        return f"{found}, which is not written like {shown(text[first])} ({best.form.text}), or is no such day; {ways}"
    return f"{found}, which is neither a date nor a whole number; {ways}, or tell the format with date_format"


def _is_remark(value: str, row: int, rows: int) -> bool:
    """Whether a row at the end of a table says something of it, such as its source."""
    return row >= rows - LAST_ROWS and not any(map(str.isdecimal, value))


def _checked(times: Times, about: TimeColumn) -> Times:
    years = times.values.astype("datetime64[Y]").astype(np.int64) + 1970
    far = (years < FIRST_YEAR) | (years > LAST_YEAR)
    if far.any():
        row = int(far.argmax())
        raise DataError(
            f"column {about.name!r} holds {_show(times.values[row])} at {about.origin.where(row)}, in the year "
            f"{years[row]}; mend it (years lie from {FIRST_YEAR} to {LAST_YEAR})"
        )
    return times


def _dated(values: np.ndarray) -> Times:
    values = _microseconds(values)
    midnight = (values == values.astype("datetime64[D]")).all()
    return Times(values, "date" if midnight else "datetime")


def _microseconds(values: np.ndarray) -> np.ndarray:
    return np.asarray(values).astype("datetime64[us]")


def _show(time: object) -> str:
    return str(time).replace("T", " ").removesuffix(".000000").removesuffix(" 00:00:00")
