"""From a person's table to a `Panel`, and forecasts back into the kind of table that came in.

Long format: one row per series and time. Everything that was filled or dropped on the way is said in
`Table.notes`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.data.columns import read_names, read_numbers
from cellwise.tasks.data.date_formats import check_date_format
from cellwise.tasks.data.encoding import check_encoding
from cellwise.tasks.data.files import read_file
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown_names
from cellwise.tasks.data.times import TimeColumn, Times, read_times
from cellwise.tasks.data.totals import without_totals
from cellwise.tasks.data.zones import to_utc
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.forecasting.arrays import table_of_arrays
from cellwise.tasks.forecasting.frequency import Frequency, parse_frequency
from cellwise.tasks.forecasting.grid import Rows, build_panel
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.tsf_file import TSF_SUFFIXES, read_tsf
from cellwise.tasks.forecasting.wide import (
    COLUMNS,
    LONG,
    ROWS,
    find_layout,
    read_values,
    refuse_repeated,
    suggestion,
)

__all__ = ["Columns", "FrameSchema", "Table", "TextFormat", "read_table"]

JOINER = "/"  # between the names of a series that several columns tell apart


@dataclass(frozen=True)
class TextFormat:
    """How text is written, as far as the user tells: date_format, such as "%d/%m/%Y"; decimal: the mark before
    decimals, "." or ","; encoding of a file, such as "cp1252"; sheet of a workbook. learned_format: the date format
    of what was learned, taken where the dates leave it open."""

    date_format: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    learned_format: str | None = None

    def __post_init__(self) -> None:
        if self.decimal not in (None, ".", ","):
            raise OptionError(f"decimal must be '.' or ',', not {self.decimal!r}")
        check_encoding(self.encoding)
        if self.date_format is not None:
            check_date_format(self.date_format)


@dataclass(frozen=True)
class Columns:
    """Which column means what, and how its text is written. A missing id column is fine where there is one
    series; id may name several, with commas. wide: the table has a column, or a row, for each series; drop: those that
    are none."""

    id: str = "unique_id"
    time: str = "ds"
    target: str = "y"
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    text: TextFormat = TextFormat()
    wide: bool = False
    drop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.drop and not self.wide:
            raise OptionError("drop (--drop) leaves out series of a wide table; give wide=True (--wide) too")
        twice = sorted({name for name in self.all() if self.all().count(name) > 1})
        if twice:
            raise OptionError(f"column {twice[0]!r} is given two meanings; each column has one")

    def all(self) -> list[str]:
        """Every column named here."""
        return [self.id, self.time, self.target, *self.known, *self.past]


@dataclass(frozen=True)
class FrameSchema:
    """How the table looked that came in, so that the forecasts look the same. JSON-able."""

    backend: str = "polars"
    id: str = "unique_id"
    time: str = "ds"
    target: str = "y"
    time_kind: str = "date"
    time_zone: str | None = None
    wall_clock: bool = False
    id_is_integer: bool = False
    time_format: str | None = None
    layout: str = LONG

    def __post_init__(self) -> None:
        if self.layout not in (LONG, COLUMNS, ROWS):
            raise ValueError(f"its table had the layout {self.layout!r:.40}")

    def frame(self, columns: Mapping[str, np.ndarray]) -> Any:
        """A frame of the same kind. Columns of names and times are recognised by their name."""
        narwhals = require("narwhals")
        made = {}
        for name, values in columns.items():
            if values.dtype.kind == "M" and self.time_zone is not None and self.wall_clock:
                values = to_utc(values, self.time_zone)
            if name == self.id and self.id_is_integer:
                values = np.array([int(value) for value in values], dtype=np.int64)
            made[name] = narwhals.new_series(
                name, values.tolist() if values.dtype == object else values, backend=self.backend
            )
        frame = narwhals.from_dict(made)
        for name, values in columns.items():
            if values.dtype.kind == "M":
                frame = frame.with_columns(self._dress(narwhals, name))
        return frame.to_native()

    def _dress(self, narwhals: Any, name: str) -> Any:
        column = narwhals.col(name)
        if self.time_zone is not None:
            return column.dt.replace_time_zone("UTC").dt.convert_time_zone(self.time_zone)
        if self.time_kind == "date" and self.backend == "polars":
            return column.cast(narwhals.Date)
        return column


@dataclass(frozen=True, eq=False)
class Table:
    """A table understood: the panel (user's covariates only), what was noticed, how it looked."""

    panel: Panel
    notes: tuple[str, ...]
    schema: FrameSchema


def read_table(
    source: Any,
    columns: Columns,
    frequency: str | Frequency | None = None,
    season_length: int | None = None,
) -> Table:
    """Understand a pandas, polars or pyarrow frame, a CSV, Excel, Parquet or .tsf file, or a list of arrays (T,), one
    for each series. A Table is understood already.

    Raises DataError, FrequencyError: one sentence on what is wrong and where.
    """
    if isinstance(source, Table):
        return source
    text, origin = columns.text, Origin()
    if isinstance(source, str | Path):
        path = Path(source)
        is_tsf = path.name.lower().endswith(TSF_SUFFIXES) and path.is_file()
        source, origin = read_tsf(path, columns) if is_tsf else read_file(path, text.encoding, text.sheet)
    if isinstance(source, list | tuple | np.ndarray):
        source = table_of_arrays(source, columns)
    frame = _open(source, columns)
    if len(frame) == 0:
        raise DataError("the table has no rows")
    if frequency is not None and not isinstance(frequency, Frequency):
        frequency = parse_frequency(frequency, season_length)
    plain = frequency is not None and frequency.is_integer
    understood = (_read_wide if columns.wide else _read_long)(frame, columns, origin, plain)
    panel, notes = build_panel(
        understood.rows,
        columns.known,
        columns.past,
        frequency,
        season_length,
        has_id=understood.has_id,
        where=understood.where,
    )
    schema = _schema(frame, understood, panel.frequency)
    return Table(panel, (*origin.notes, *understood.times.notes, *understood.notes, *notes), schema)


@dataclass(frozen=True, eq=False)
class Understood:
    """The rows of a table in long format, and what the series and the times are called; where: how a person finds a
    row in what was given; notes: what was noticed in its numbers."""

    rows: Rows
    times: Times
    columns: Columns
    where: Callable[[int], str]
    notes: tuple[str, ...]
    has_id: bool = True
    id_is_integer: bool = False
    layout: str = LONG


def _read_long(frame: Any, columns: Columns, origin: Origin, plain: bool) -> Understood:
    ids = _id_columns(frame, columns)
    has_id = _check_columns(frame, columns, ids)
    frame, origin, notes = without_totals(frame, columns.time, origin)
    if len(ids) > 1:
        parts = [read_names(frame[name], name, origin)[0] for name in ids]
        names, id_is_integer = (
            np.array([JOINER.join(row) for row in zip(*parts, strict=True)], dtype=object),
            False,
        )
        columns = replace(columns, id=JOINER.join(ids))
    elif has_id:
        names, id_is_integer = read_names(frame[columns.id], columns.id, origin)
    else:
        names, id_is_integer = np.full(len(frame), columns.target, dtype=object), False
    times = read_times(frame[columns.time], _about(columns, columns.time, origin, names, plain))
    numbers = _Numbers(frame, origin, columns.text.decimal)
    rows = Rows(
        names=names,
        times=times.values,
        y=numbers.read(columns.target),
        known=numbers.stack(columns.known),
        past=numbers.stack(columns.past),
        rows=np.arange(len(frame)),
    )
    return Understood(rows, times, columns, origin.where, (*notes, *numbers.notes), has_id, id_is_integer)


def _read_wide(frame: Any, columns: Columns, origin: Origin, plain: bool) -> Understood:
    layout = find_layout(
        frame,
        time=columns.time,
        id=columns.id,
        target=columns.target,
        covariates=(*columns.known, *columns.past),
        drop=columns.drop,
        has_told_time=columns.time != Columns.time,
    )
    notes: tuple[str, ...] = ()
    if layout.kind == COLUMNS:
        columns = replace(columns, time=layout.time)
        frame, origin, notes = without_totals(frame, layout.time, origin)
        column, place = frame[layout.time], origin
    else:
        columns = replace(columns, id=layout.id)
        column = require("narwhals").new_series(columns.time, layout.time_names, backend="polars")
        place, plain = Origin(header=True), plain or layout.are_counted
    one = np.full(len(column), columns.target, dtype=object)
    times = read_times(column, _about(columns, columns.time, place, one, plain))
    refuse_repeated(times.values, place, columns.time)
    names, y, index, cells, more = read_values(
        frame, layout, columns.target, columns.drop, origin, columns.text.decimal
    )
    numbers = _Numbers(frame, origin, columns.text.decimal)
    known, past = numbers.stack(columns.known), numbers.stack(columns.past)
    if layout.kind == ROWS:  # which has none
        known = past = np.zeros((len(times.values), 0))
    rows = Rows(names, times.values[index], y, known[index], past[index], np.arange(len(y)))
    is_integer = layout.kind == ROWS and frame[layout.id].dtype.is_integer()
    notes = (*notes, *more, *numbers.notes)
    return Understood(rows, times, columns, cells.where, notes, True, is_integer, layout.kind)


def _about(columns: Columns, name: str, origin: Origin, series: np.ndarray, plain: bool) -> TimeColumn:
    text = columns.text
    return TimeColumn(
        name,
        origin,
        lambda: series.astype(str),
        plain=plain,
        form=text.date_format,
        learned=text.learned_format,
    )


def _schema(frame: Any, understood: Understood, frequency: Frequency) -> FrameSchema:
    kind, times = frame.implementation, understood.times
    return FrameSchema(
        backend="pyarrow" if kind.is_pyarrow() else "pandas" if kind.is_pandas_like() else "polars",
        id=understood.columns.id,
        time=understood.columns.time,
        target=understood.columns.target,
        time_kind=_kind(times, frequency),
        time_zone=times.zone,
        wall_clock=times.wall_clock,
        id_is_integer=understood.id_is_integer,
        time_format=times.form,
        layout=understood.layout,
    )


def _open(source: Any, columns: Columns) -> Any:
    narwhals = require("narwhals")
    if type(source).__module__.startswith("pandas"):
        source = _without_index(source, columns)
        source = source.rename(columns=str) if columns.wide else source  # times and numbers may name columns
    try:
        frame = narwhals.from_native(source)
    except narwhals.exceptions.DuplicateError as error:
        raise DataError(f"the columns need different names: {' '.join(str(error).split())}") from error
    except TypeError as error:
        raise DataError(
            "a table is a pandas, polars or pyarrow frame, the path of a CSV, Excel or Parquet file, or a list of "
            f"arrays, not {type(source).__name__}"
        ) from error
    return frame.collect() if isinstance(frame, narwhals.LazyFrame) else frame


def _without_index(source: Any, columns: Columns) -> Any:
    """A pandas frame whose times and names stand in columns; both may come as its index, and a series over
    them is a table too."""
    wanted = [columns.id, columns.time]
    names = list(source.index.names)
    is_series = hasattr(source, "to_frame")
    if is_series or not set(wanted) <= set(source.columns):
        if names == [None]:
            dated = source.index.dtype.kind == "M" or "period" in str(source.index.dtype)
            if is_series or (dated and columns.time not in source.columns):
                names = [columns.time]
        elif len(names) == 2 and names == [None, None]:
            names = wanted
        elif len(names) == 1 and is_series:
            names = [names[0] or columns.time]
    if is_series:
        if not all(names):
            raise DataError(f"the levels of the index must be named, such as {wanted}, not {names}")
        return source.rename(columns.target).rename_axis(names).reset_index()
    moved = [name for name in names if name in wanted and name not in source.columns]
    return source.rename_axis(names).reset_index(level=moved) if moved else source


def _id_columns(frame: Any, columns: Columns) -> list[str]:
    """The columns that tell series apart: one, or several with commas between them."""
    if columns.id in frame.columns or "," not in columns.id:
        return [columns.id]
    return [name.strip() for name in columns.id.split(",")]


def _check_columns(frame: Any, columns: Columns, ids: list[str]) -> bool:
    """Every named column is there; returns whether an id column is."""
    needed = [columns.time, columns.target, *columns.known, *columns.past]
    if columns.id != Columns.id:
        needed = [*ids, *needed]
    for name in needed:
        if name not in frame.columns:
            near = get_close_matches(name, [str(column) for column in frame.columns], n=1)
            hint = (
                f"; did you mean {near[0]!r}?"
                if near
                else suggestion(frame, name, columns.time, columns.target)
            )
            raise DataError(f"there is no column {name!r}; the table has {shown_names(frame.columns)}{hint}")
    return ids[0] in frame.columns


class _Numbers:
    """The numbers of a table, column by column, and what is to be said of them."""

    def __init__(self, frame: Any, origin: Origin, decimal: str | None) -> None:
        self._frame, self._origin, self._decimal = frame, origin, decimal
        self.notes: tuple[str, ...] = ()

    def read(self, name: str) -> np.ndarray:
        """One column, float64 (R,)."""
        values, notes = read_numbers(self._frame[name], name, self._origin, self._decimal)
        self.notes += notes
        return values

    def stack(self, names: tuple[str, ...]) -> np.ndarray:
        """Columns side by side, float64 (R, len(names))."""
        parts = [self.read(name) for name in names]
        return np.stack(parts, axis=1) if parts else np.zeros((len(self._frame), 0))


def _kind(times: Times, frequency: Frequency) -> str:
    """Hourly data that happens to show midnights only is still hourly."""
    return "datetime" if times.kind == "date" and frequency.unit in ("s", "min", "h") else times.kind
