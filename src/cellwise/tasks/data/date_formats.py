"""Formats of dates, written like strptime's, and what a column of text means in one.

A format is turned into a regular expression; the calendar is worked out in numpy, for all rows at once. A date
without a time of day may be followed by one in any row, with seconds, fractions, AM or PM, and an offset."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from cellwise.tasks.data.optional import require
from cellwise.tasks.errors import OptionError

__all__ = ["FIRST_YEAR", "LAST_YEAR", "DateFormat", "Reading", "check_date_format"]

FIRST_YEAR, LAST_YEAR = 1600, 2200  # what is read as a date by itself lies within these
PIVOT = 69  # POSIX: 69 to 99 are of the 20th century, 00 to 68 of the 21st

# directive -> name of the group, what it looks like, what it looks like beside another number without a mark
DIRECTIVES = {
    "Y": ("year", r"\d{4}", r"\d{4}"),
    "y": ("short", r"\d{2}", r"\d{2}"),
    "m": ("month", r"\d{1,2}", r"\d{2}"),
    "d": ("day", r"\d{1,2}", r"\d{2}"),
    "b": ("name", r"[A-Za-z]{3,9}\.?", r"[A-Za-z]{3,9}\.?"),
    "a": ("named_weekday", r"[A-Za-z]{3,9}\.?", r"[A-Za-z]{3,9}\.?"),
    "j": ("ordinal", r"\d{3}", r"\d{3}"),
    "q": ("quarter", r"[1-4]", r"[1-4]"),
    "G": ("week_year", r"\d{4}", r"\d{4}"),
    "V": ("week", r"\d{2}", r"\d{2}"),
    "u": ("weekday", r"[1-7]", r"[1-7]"),
    "H": ("hour", r"\d{1,2}", r"\d{2}"),
    "I": ("hour", r"\d{1,2}", r"\d{2}"),
    "M": ("minute", r"\d{2}", r"\d{2}"),
    "S": ("second", r"\d{2}", r"\d{2}"),
    "f": ("fraction", r"\d{1,9}", r"\d{1,9}"),
    "p": ("half", r"[AaPp]\.?[Mm]\.?", r"[AaPp]\.?[Mm]\.?"),
    "z": ("offset", r"(?:Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)", r"(?:Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)"),
}
DIRECTIVES |= {"B": DIRECTIVES["b"], "A": DIRECTIVES["a"]}
TIME_OF_DAY = (
    r"(?:(?:[Tt]|\s+|,\s*)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    rf"(?:\s*(?P<half>{DIRECTIVES['p'][1]}))?(?:\s*(?P<offset>{DIRECTIVES['z'][1]}))?)?"
)
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
MONTH_NUMBERS = {name: i + 1 for i, name in enumerate(MONTHS)}
MONTH_NUMBERS |= {name[:3]: i + 1 for i, name in enumerate(MONTHS)} | {"sept": 9}
MARKS = " -/.,'_"  # in a date with the name of a month one does for another
WEEKDAYS = {name: i for i, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}
SECOND = 10**6
DAY = 86400 * SECOND


@dataclass(frozen=True, eq=False)
class Reading:
    """A column in one format. fits (R,): whether the format reads a row; wall (R,) datetime64[us]: date and time
    of day as written; utc (R,): the same instants in UTC, or None where no row has an offset; bare (R,): whether
    a row has none."""

    form: DateFormat
    fits: np.ndarray
    wall: np.ndarray
    utc: np.ndarray | None = None
    bare: np.ndarray | None = None

    @property
    def whole(self) -> bool:
        """Whether the format reads every row."""
        return bool(self.fits.all())


@dataclass(frozen=True)
class DateFormat:
    """A format such as "%d.%m.%Y". `anywhere`: the year may be any; else it lies from 1600 to 2200."""

    text: str
    anywhere: bool = False

    @cached_property
    def pattern(self) -> str:
        """The regular expression. A number beside another one has all its digits; marks beside a month's name may
        be others."""
        return _compile(self.text)

    def matches(self, value: str) -> bool:
        """Whether a value looks like this format."""
        return re.search(self.pattern, value) is not None

    def read(self, text: Any) -> Reading:
        """A polars text column in this format."""
        polars = require("polars")
        groups = text.str.extract_groups(self.pattern).struct.unnest()
        parts = {name: groups[name] for name in groups.columns}
        fits = ~groups.select(polars.all_horizontal(polars.all().is_null())).to_series().to_numpy()
        days, valid = _days(parts)
        within, in_day = _time_of_day(parts, len(text))
        years = days.astype("datetime64[Y]").astype(np.int64) + 1970
        fits &= valid & in_day & (self.anywhere | ((years >= FIRST_YEAR) & (years <= LAST_YEAR)))
        wall = days.astype("datetime64[us]") + within
        offsets = parts.get("offset")
        if offsets is None or offsets.null_count() == len(offsets):
            return Reading(self, fits, wall)
        utc = wall - _offset(offsets)
        return Reading(self, fits, wall, utc, offsets.is_null().to_numpy())


def check_date_format(form: str) -> None:
    """OptionError unless it is a date format."""
    if not isinstance(form, str):
        raise OptionError(f"date_format must be text such as '%d.%m.%Y', not {form!r}")
    _compile(form)


@lru_cache(maxsize=256)
def _compile(form: str) -> str:
    tokens = re.findall(r"%.|[^%]+", form)
    codes = [token[1] if token[0] == "%" else "" for token in tokens]
    unknown = [token for token, code in zip(tokens, codes, strict=True) if code and code not in DIRECTIVES]
    if unknown or "%" in form.replace("%%", "")[-1:]:
        raise OptionError(
            f"the date format {form!r} holds {unknown[0] if unknown else '%'}, which is not known; it may hold "
            + ", ".join(f"%{code}" for code in DIRECTIVES)
        )
    _check_whole(form, codes)
    made, names = [], set("aAbB")
    for i, (token, code) in enumerate(zip(tokens, codes, strict=True)):
        near = {codes[j] for j in (i - 1, i + 1) if 0 <= j < len(codes)}
        if code:
            group, loose, tight = DIRECTIVES[code]
            made.append(f"(?P<{group}>{tight if any(near) else loose})")
        elif names & set(codes) and not token.strip(MARKS):
            made.append(rf"[\s{re.escape(MARKS)}]" + ("*" if names & near else "+"))
        else:
            made.append(re.sub(r"\\?\s+", r"\\s+", re.escape(token)))
    has_time = any(code in "HIMSfp" for code in codes if code)
    return "^" + "".join(made) + ("" if has_time or "z" in codes else TIME_OF_DAY) + "$"


def _check_whole(form: str, codes: list[str]) -> None:
    groups = [DIRECTIVES[code][0] for code in codes if code]
    twice = [group for group in groups if groups.count(group) > 1]
    found = set(groups)
    year = found & {"year", "short", "week_year"}
    by_week = {"week", "week_year"} & found
    if (
        twice
        or len(year) != 1
        or len(by_week) == 1
        or len(found & {"month", "name", "quarter", "ordinal", "week"}) > 1
    ):
        raise OptionError(
            f"the date format {form!r} is none: it needs one year (%Y or %y) and, at most once each, a month, a day "
            "and a time, such as %d.%m.%Y or %m/%d/%y %H:%M"
        )


def _whole(part: Any) -> np.ndarray:
    """A text column of digits as int64, 0 where there is none."""
    return part.cast(require("polars").Int64, strict=False).fill_null(0).to_numpy()


def _days(parts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The day (R,) datetime64[D], and whether there is such a day."""
    if "week" in parts:
        return _iso_weeks(parts)
    if "short" in parts:
        short = _whole(parts["short"])
        year = np.where(short >= PIVOT, 1900, 2000) + short
    else:
        year = _whole(parts["year"])
    if "name" in parts:
        names = parts["name"].str.to_lowercase().str.strip_chars(".")
        month = names.replace_strict(MONTH_NUMBERS, default=0, return_dtype=require("polars").Int64)
        month = month.fill_null(0).to_numpy()
    elif "quarter" in parts:
        month = 3 * _whole(parts["quarter"]) - 2
    else:
        month = _whole(parts["month"]) if "month" in parts else np.ones_like(year)
    valid = (month >= 1) & (month <= 12) & (year >= 1)
    first = ((np.where(valid, year, 1970) - 1970) * 12 + np.where(valid, month, 1) - 1).astype(
        "datetime64[M]"
    )
    start = first.astype("datetime64[D]")
    length = ((first + 1).astype("datetime64[D]") - start).astype(np.int64)
    day = _whole(parts["day"]) if "day" in parts else np.ones_like(year)
    if "ordinal" in parts:
        day = _whole(parts["ordinal"])
        length = ((first + 12).astype("datetime64[D]") - start).astype(np.int64)
    valid &= (day >= 1) & (day <= length)
    days = start + np.where(valid, day - 1, 0)
    if "named_weekday" in parts:
        names = parts["named_weekday"].str.to_lowercase().str.slice(0, 3)
        weekday = names.replace_strict(WEEKDAYS, default=-1, return_dtype=require("polars").Int64)
        valid &= weekday.fill_null(-1).to_numpy() == (days.astype(np.int64) + 3) % 7
    return days, valid


def _iso_weeks(parts: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """ISO 8601: week 1 holds the 4th of January, and begins on Monday."""
    year, week = _whole(parts["week_year"]), _whole(parts["week"])
    weekday = _whole(parts["weekday"]) if "weekday" in parts else np.ones_like(week)

    def first_monday(of: np.ndarray) -> np.ndarray:
        fourth = (of - 1970).astype("datetime64[Y]").astype("datetime64[D]") + 3
        return fourth - (fourth.astype(np.int64) + 3) % 7

    start = first_monday(year)
    weeks = (first_monday(year + 1) - start).astype(np.int64) // 7
    return start + (week - 1) * 7 + weekday - 1, (week >= 1) & (week <= weeks) & (year >= 1)


def _time_of_day(parts: dict[str, Any], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The time of day (R,) timedelta64[us], and whether there is such a time."""
    zero = np.zeros(rows, dtype=np.int64)
    hour, minute, second = (_whole(parts[k]) if k in parts else zero for k in ("hour", "minute", "second"))
    valid = (hour <= 23) & (minute <= 59) & (second <= 59)
    if "half" in parts:
        letter = parts["half"].str.slice(0, 1).str.to_lowercase()
        has_half = letter.is_not_null().to_numpy()
        valid &= ~has_half | ((hour >= 1) & (hour <= 12))
        # 12 AM is midnight, 12 PM noon; a column that has AM or PM in some rows only is no clock
        afternoon = (letter == "p").fill_null(False).to_numpy()
        hour = np.where(has_half, hour % 12 + 12 * afternoon, hour)
        if has_half.any() and not has_half.all():
            valid &= has_half
    fraction = zero
    if "fraction" in parts:
        fraction = _whole(parts["fraction"].fill_null("").str.pad_end(9, "0")) // 1000
    seconds = (hour * 60 + minute) * 60 + second
    return (seconds * SECOND + fraction).astype("timedelta64[us]"), valid


def _offset(text: Any) -> np.ndarray:
    """Offsets from UTC, timedelta64[us] (R,); 0 for Z and where there is none."""
    digits = text.str.replace(":", "", literal=True)
    hours, minutes = _whole(digits.str.slice(1, 2)), _whole(digits.str.slice(3, 2))
    sign = np.where((text.str.slice(0, 1) == "-").fill_null(False).to_numpy(), -1, 1)
    return (sign * (hours * 60 + minutes) * 60 * SECOND).astype("timedelta64[us]")
