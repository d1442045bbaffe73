"""The names of a table's columns, as a file's header has them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cellwise.tasks.data.date_formats import DateFormat
from cellwise.tasks.data.origin import shown
from cellwise.tasks.data.times import FORMATS
from cellwise.tasks.errors import DataError

__all__ = ["are_times", "column_names", "is_value", "resemble_times"]

# how a value looks; a header that holds one names no columns
VALUE = re.compile(r"[+-]?[\d.,]*\d|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*")
# a year, a year and its month, a day: what other numbers name no time
NUMBERED = re.compile(r"(?:19|20)\d\d(?:(?:0[1-9]|1[0-2])(?:[0-3]\d)?)?")
LONGEST = 100  # no date has more characters


def is_value(name: str) -> bool:
    """Whether this looks like a number or a date, which names no column."""
    return VALUE.fullmatch(name) is not None


def are_times(names: Sequence[str]) -> bool:
    """Whether these, at least two, are written as times in one format."""
    if len(names) < 2:
        return False
    if all(NUMBERED.fullmatch(name) for name in names):
        return len({len(name) for name in names}) == 1
    return any(all(_fits(name, form) for name in names) for form in FORMATS)


def resemble_times(values: Sequence[str]) -> bool:
    """Whether most of these are written as times in some format; there is at least one."""
    fits = [
        NUMBERED.fullmatch(value) is not None or any(_fits(value, form) for form in FORMATS)
        for value in values
    ]
    return sum(fits) > len(fits) / 2


def _fits(value: str, form: DateFormat) -> bool:
    return len(value) <= LONGEST and not value.isdecimal() and form.matches(value)


def column_names(cells: Sequence[str], place: str, path: object, example: str) -> list[str]:
    """The names in a header; a column without one is called "unnamed 3".

    Times may be names, where a first column names series: the header of a wide table. place: how a person finds the
    header of the file `path`; example: a line that would do. DataError for other values, and for a name that stands
    there twice."""
    names = [name.strip() for name in cells]
    values = [name for name in names if is_value(name)]
    is_wide = bool(names) and not is_value(names[0]) and are_times([name for name in names if is_value(name)])
    if len(values) > len(names) / 2 and not is_wide:
        raise DataError(
            f"{place} must name the columns, but it holds {', '.join(map(shown, names[:3]))}; put {example} before it"
        )
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has two columns named {shown(twice[0])}; each needs a name of its own")
    return [name or f"unnamed {i + 1}" for i, name in enumerate(names)]
