"""Wide tables, as spreadsheets have them: a column of times and one column per series, or one row per series and one
column per time. Into long format and back.

All values of a wide table are read by one convention, as those of one column are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from shlex import quote
from typing import Any

import numpy as np

from cellwise.tasks.data.columns import as_text, read_names, read_numbers
from cellwise.tasks.data.header import are_times, resemble_times
from cellwise.tasks.data.numerals import MISSING
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown, shown_names
from cellwise.tasks.data.totals import TOTALS
from cellwise.tasks.errors import DataError

__all__ = ["COLUMNS", "LONG", "ROWS", "Layout", "find_layout", "read_values", "refuse_repeated"]
__all__ += ["suggestion", "wide_frames"]

LONG, COLUMNS, ROWS = "long", "columns", "rows"  # how a table holds its series
FEWEST_TIMES = 3  # among the names of columns, for a table without --wide to look like one row per series
FEWEST_COUNTED = 8  # columns that are counted, for the same
SAMPLE = 50  # rows that show what a column holds


@dataclass(frozen=True)
class Layout:
    """Which column of a wide table means what.

    kind: COLUMNS (`series` are the columns of series, `time` that of the times) or ROWS (`times` are the columns, `id`
    the one that names the series). are_counted: whether the names of `times` are numbers behind a word they share, as
    d_1, d_2, d_3. notes: what was left out, in sentences."""

    kind: str
    series: tuple[str, ...] = ()
    time: str = ""
    times: tuple[str, ...] = ()
    id: str = ""
    notes: tuple[str, ...] = ()
    are_counted: bool = False

    @property
    def time_names(self) -> list[str]:
        """The times as they are written in the header."""
        return [_number(name)[1] if self.are_counted else name for name in self.times]


@dataclass(frozen=True, eq=False)
class Cells(Origin):
    """The origin of the values of a wide table, column by column."""

    table: Origin = field(default_factory=Origin)
    names: tuple[str, ...] = ()
    height: int = 1

    def where(self, row: int) -> str:
        """The row of the table, and the column."""
        return f"{self.table.where(row % self.height)}, column {shown(self.names[row // self.height])}"

    def column(self, name: str) -> str:
        """Its values stand in many."""
        return "the wide table"


def find_layout(
    frame: Any,
    *,
    time: str,
    id: str,
    target: str,
    covariates: Sequence[str],
    drop: Sequence[str],
    has_told_time: bool,
) -> Layout:
    """How a narwhals frame, which the user says is wide, holds its series.

    time, id, target: the columns as the user names them; has_told_time: whether the time is no default. Raises
    DataError for a table that does not look wide, and for columns that are not there."""
    names = [str(name) for name in frame.columns]
    if {time, id, target} <= set(names):
        raise DataError(
            f"the table has the columns {id!r}, {time!r} and {target!r}, so it is long; leave wide (--wide) out"
        )
    for name in (*covariates, *((time,) if has_told_time else ())):
        if name not in names:
            raise DataError(f"there is no column {name!r}; {_has(names, name)}")
    rest = [name for name in names if name not in covariates]
    chosen = time if time in rest else next((name for name in rest if _holds_dates(frame[name])), None)
    dated = _times_among(names)
    if chosen is None and len(dated) > 1:
        return _rows_layout(names, dated, id, covariates)
    if chosen is None and rest and _holds_whole_numbers(frame[rest[0]]):
        chosen = rest[0]
    counted = _counted_among(frame, rest)
    if chosen is None and counted:
        return replace(_rows_layout(names, counted, id, covariates), are_counted=True)
    if chosen is not None:
        return _columns_layout(frame, chosen, [name for name in rest if name != chosen], drop)
    raise DataError(
        "the table does not look wide: no column holds dates, and no columns are named by them or counted (as d_1, "
        f"d_2, d_3); {_has(names)}; leave wide (--wide) out, or name the column of times with time_column (--time)"
    )


def _columns_layout(frame: Any, time: str, others: list[str], drop: Sequence[str]) -> Layout:
    unknown = [name for name in drop if name not in others]
    if unknown:
        raise DataError(f"there is no column {unknown[0]!r} to drop; {_has(others, unknown[0])}")
    series = [name for name in others if name not in drop]
    if not series:
        raise DataError(f"the wide table has no column of a series beside {shown(time)}")
    wordy = next((name for name in series if _holds_words(frame[name])), None)
    if wordy is not None:
        raise DataError(
            f"column {wordy!r} of the wide table holds words, not numbers; leave it out with drop=[{wordy!r}] "
            f"(--drop {quote(wordy)}), or, if it names the series, leave wide (--wide) out"
        )
    return Layout(COLUMNS, tuple(series), time, notes=_note_on_totals(series))


def _rows_layout(names: list[str], dated: list[str], id: str, covariates: Sequence[str]) -> Layout:
    if covariates:
        raise DataError(
            f"a table with one row per series holds no covariates ({', '.join(covariates)}); give one "
            "with a column per series, or long format"
        )
    others = [name for name in names if name not in dated]
    if not others:
        raise DataError("no column of the wide table names its series; put their names in a first column")
    chosen = id if id in others else others[0]
    unused = [name for name in others if name != chosen]
    note = f"of the wide table, {shown_names(unused)} {'was' if len(unused) == 1 else 'were'} not used"
    return Layout(ROWS, times=tuple(dated), id=chosen, notes=(note,) if unused else ())


def read_values(
    frame: Any, layout: Layout, target: str, drop: Sequence[str], origin: Origin, decimal: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Cells, tuple[str, ...]]:
    """The cells of a wide table, column by column: names of their series (V,), their values (V,), the index of each
    one's time (V,), where they stand, and notes. In ROWS the series that are to be dropped are left out."""
    columns = layout.series if layout.kind == COLUMNS else layout.times
    notes: tuple[str, ...] = layout.notes
    if layout.kind == ROWS:
        named, _ = read_names(frame[layout.id], layout.id, origin)
        keep = _kept_rows(named, layout.id, drop, origin)
        named, frame, origin = named[keep], frame.filter(keep.tolist()), origin.take(keep)
        notes += _note_on_totals(named.tolist())
    height = len(frame)
    cells = Cells(
        decimal_comma=origin.decimal_comma, table=origin, names=tuple(columns), height=max(height, 1)
    )
    values, more = read_numbers(_stacked(frame, columns), target, cells, decimal)
    if layout.kind == COLUMNS:
        names, times = (
            np.repeat(np.array(columns, dtype=object), height),
            np.tile(np.arange(height), len(columns)),
        )
    else:
        names, times = np.tile(named, len(columns)), np.repeat(np.arange(len(columns)), height)
    return names, values, times, cells, (*notes, *more)


def refuse_repeated(times: np.ndarray, origin: Origin, name: str) -> None:
    """DataError where a time stands twice, which a wide table has once for all series."""
    _, first, codes = np.unique(times, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[codes] != np.arange(len(times)))
    if len(again):
        row = int(again[0])
        raise DataError(
            f"column {name!r} of the wide table has the time of {origin.where(int(first[codes[row]]))} again at "
            f"{origin.where(row)}; keep one row per time, or leave wide (--wide) out if series stand below each other"
        )


def _stacked(frame: Any, names: Sequence[str]) -> Any:
    """The columns one below the other, as one narwhals column: numbers if all are, else text."""
    narwhals, polars = require("narwhals"), require("polars")
    columns = [frame[name] for name in names]
    if all(column.dtype.is_numeric() for column in columns):
        whole = polars.Series(
            np.concatenate([column.cast(narwhals.Float64).to_numpy() for column in columns])
        )
    else:
        whole = polars.concat([_text(column, name) for column, name in zip(columns, names, strict=True)])
    return narwhals.from_native(whole, series_only=True)


def _text(column: Any, name: str) -> Any:
    polars = require("polars")
    if column.null_count() == len(column):
        return polars.Series([None] * len(column), dtype=polars.String)
    if column.dtype.is_numeric():
        return polars.Series(column.to_numpy()).cast(polars.String)
    return as_text(column, name)


def _kept_rows(named: np.ndarray, id: str, drop: Sequence[str], origin: Origin) -> np.ndarray:
    unknown = [name for name in drop if name not in named]
    if unknown:
        raise DataError(
            f"there is no series {unknown[0]!r} to drop; the table has {shown_names(named.tolist())}"
        )
    keep = ~np.isin(named.astype(str), list(drop))
    found, first = np.unique(named[keep].astype(str), return_index=True)
    if len(found) < keep.sum():
        rows = np.flatnonzero(keep)
        again = next(i for i in range(len(rows)) if i not in set(first.tolist()))
        raise DataError(
            f"two rows of the wide table are named {shown(named[rows[again]])}, the second at "
            f"{origin.where(int(rows[again]))}; name the column that tells series apart, not {id!r}, with id_column "
            "(--id)"
        )
    return keep


# --- what a table looks like ------------------------------------------------------------------------------------


def suggestion(frame: Any, missing: str, time: str, target: str) -> str:
    """What to tell a person whose table lacks a column of long format, as the end of a sentence; "" if nothing."""
    names = [name for name in frame.columns if isinstance(name, str)]  # pandas has others too
    if len(_times_among(names)) >= FEWEST_TIMES:
        return "; its columns are named by times, so it looks wide, with one row per series: give wide=True (--wide)"
    counted = _counted_among(frame, names)
    if 2 * len(counted) > len(names) and len(counted) < len(names) and len(counted) >= FEWEST_COUNTED:
        return "; its columns are counted, so it looks wide, with one row per series: give wide=True (--wide)"
    dated = time if time in names else _dated(frame, names)
    if dated is None and {"year", "month"} <= {name.lower() for name in names}:
        return "; put year and month into one column, such as 2024-01"
    if dated is None or missing not in (time, target):
        return ""
    words = [name for name in names if name != dated and _holds_words(frame[name])]
    numbers = [name for name in names if name not in (dated, *words)]
    tells_apart = _telling_apart(frame, dated, words)
    if target not in names and len(numbers) > 1 and tells_apart is None:
        return (
            "; it looks wide, with one column per series: give wide=True (--wide), or name the column to forecast with "
            "target_column (--target)"
        )
    told = {"time_column": dated} if dated != time else {}
    if target not in names and len(numbers) == 1:
        told["target_column"] = numbers[0]
    if tells_apart is not None:
        told["id_column"] = tells_apart
    if not told:
        return ""
    python = ", ".join(f"{option}={name!r}" for option, name in told.items())
    shell = " ".join(f"--{option.partition('_')[0]} {quote(name)}" for option, name in told.items())
    return f"; perhaps {python} ({shell})"


def _dated(frame: Any, names: Sequence[str]) -> str | None:
    """The column of times: one of dates rather than of words that resemble some, such as "part01", or of numbers, such
    as 1664.81."""
    found = [name for name in names if _holds_dates(frame[name])]
    return min(
        found, key=lambda name: (_holds_decimals(frame[name]), _holds_words(frame[name])), default=None
    )


def _telling_apart(frame: Any, time: str, words: Sequence[str]) -> str | None:
    """The first column of words without whose series a time would stand in two rows."""
    if not frame[time].is_duplicated().any():
        return None
    return next((name for name in words if not frame.select(time, name).is_duplicated().any()), None)


def _has(names: Sequence[str], wanted: str = "") -> str:
    near = get_close_matches(wanted, names, n=1)
    return f"the table has {shown_names(names)}" + (f"; did you mean {near[0]!r}?" if near else "")


def _times_among(names: Sequence[str]) -> list[str]:
    """The names of columns that are times in one format."""
    found = [name for name in names if resemble_times([name])]
    return found if are_times(found) else []


def _counted_among(frame: Any, names: Sequence[str]) -> list[str]:
    """The last columns if their names are a word and 1, 2, 3, ..., as the M4 and M5 competitions have them, and all
    hold numbers; empty if there are fewer than FEWEST_TIMES."""
    found: list[str] = []
    for name in reversed(names):
        word, number = _number(name)
        if (
            not number
            or (found and _number(found[-1]) != (word, str(int(number) + 1)))
            or _holds_words(frame[name])
        ):
            break
        found.append(name)
    return found[::-1] if len(found) >= FEWEST_TIMES else []


def _number(name: str) -> tuple[str, str]:
    """A name without the digits at its end, and these; "" if they are none, or begin with 0."""
    word = name.rstrip("0123456789")
    number = name[len(word) :]
    return word, "" if number[:1] == "0" and number != "0" else number


def _holds_dates(column: Any) -> bool:
    """Whether most values are dates by more than their digits."""
    narwhals = require("narwhals")
    if column.dtype in (narwhals.Date, narwhals.Datetime):
        return True
    values = [] if column.dtype.is_numeric() else _sample(column)
    return not all(map(str.isdecimal, values)) and resemble_times(values)


def _holds_whole_numbers(column: Any) -> bool:
    return column.dtype.is_integer() or all(value.lstrip("+-").isdecimal() for value in _sample(column))


def _holds_decimals(column: Any) -> bool:
    """Whether every value is written as a number with a decimal point."""
    return all(value.count(".") == 1 and value.replace(".", "").isdecimal() for value in _sample(column))


def _holds_words(column: Any) -> bool:
    """Whether every value has a letter in it."""
    values = [] if column.dtype.is_numeric() else _sample(column)
    return bool(values) and all(any(map(str.isalpha, value)) for value in values)


def _sample(column: Any) -> list[str]:
    rows = np.unique(np.linspace(0, len(column) - 1, SAMPLE).astype(int))
    texts = [str(column[int(row)]).strip() for row in rows if column[int(row)] is not None]
    return [text for text in texts if text.lower() not in MISSING and text.lower() not in TOTALS]


def _note_on_totals(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"{shown(name)} is taken as one more series; --drop {quote(str(name))} leaves it out"
        for name in names
        if str(name).strip().lower() in TOTALS
    )


# --- and back ---------------------------------------------------------------------------------------------------


def wide_frames(made: Any, id: str, time: str, layout: str) -> dict[str, Any]:
    """A long polars frame of forecasts as wide ones: "forecast" for the median, then one for each bound of a band.

    layout: COLUMNS or ROWS; LONG is written as COLUMNS. Times in which a series has no forecast are empty."""
    polars = require("polars")
    made = made.with_columns(polars.col(id).cast(polars.String))
    median, *bounds = [name for name in made.columns if name not in (id, time)]
    frames = {}
    for name in (median, *bounds):
        wide = made.pivot(on=id, index=time, values=name, aggregate_function=None).sort(time)
        if layout == ROWS:
            heads = wide[time].cast(polars.String).str.replace(" 00:00:00.*$", "").to_list()
            wide = wide.drop(time).transpose(include_header=True, header_name=id, column_names=heads)
        frames["forecast" if name == median else name.removeprefix(f"{median}-")] = wide
    return frames
