"""From a person's table to a `Panel`, and forecasts back into the kind of table that came in.

Long format: one row per series and time. Everything that was filled or dropped on the way is said in
`Table.notes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.forecasting.columns import Times, read_names, read_numbers, read_times
from cellwise.tasks.forecasting.errors import DataError, OptionError
from cellwise.tasks.forecasting.extras import need
from cellwise.tasks.forecasting.files import read_file
from cellwise.tasks.forecasting.frequency import Frequency
from cellwise.tasks.forecasting.grid import Rows, build_panel
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Columns", "FrameStyle", "Table", "read_table"]


@dataclass(frozen=True)
class Columns:
    """Which column means what. A missing id column is fine where there is one series."""

    id: str = "unique_id"
    time: str = "ds"
    target: str = "y"
    known: tuple[str, ...] = ()
    past: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.all() if self.all().count(name) > 1})
        if twice:
            raise OptionError(f"column {twice[0]!r} is given two meanings; each column has one")

    def all(self) -> list[str]:
        """Every column named here."""
        return [self.id, self.time, self.target, *self.known, *self.past]


@dataclass(frozen=True)
class FrameStyle:
    """How the table looked that came in, so that the forecasts look the same. JSON-able."""

    backend: str = "polars"
    id: str = "unique_id"
    time: str = "ds"
    target: str = "y"
    time_kind: str = "date"
    time_zone: str | None = None
    wall_clock: bool = False
    id_is_integer: bool = False

    def frame(self, columns: Mapping[str, np.ndarray]) -> Any:
        """A frame of the same kind. Columns of names and times are recognised by their name."""
        narwhals = need("narwhals")
        made = {}
        for name, values in columns.items():
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
        if self.time_zone is not None and self.wall_clock:
            return column.dt.replace_time_zone(self.time_zone)
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
    style: FrameStyle


def read_table(
    source: Any,
    columns: Columns,
    frequency: str | Frequency | None = None,
    season_length: int | None = None,
) -> Table:
    """Understand a pandas, polars or pyarrow frame, or a CSV or Parquet file. A Table is understood already.

    Raises DataError, FrequencyError: one sentence on what is wrong and where.
    """
    if isinstance(source, Table):
        return source
    from_text = False
    if isinstance(source, str | Path):
        path = Path(source)
        source = read_file(path)
        from_text = not path.name.lower().endswith((".parquet", ".pq"))
    frame = _open(source, columns)
    if len(frame) == 0:
        raise DataError("the table has no rows")
    has_id = _check_columns(frame, columns)
    times = read_times(frame[columns.time], columns.time, from_text)
    if has_id:
        names, id_is_integer = read_names(frame[columns.id], columns.id, from_text)
    else:
        names, id_is_integer = np.full(len(frame), columns.target, dtype=object), False
    rows = Rows(
        names=names,
        times=times.values,
        y=read_numbers(frame[columns.target], columns.target, from_text),
        known=_stack(frame, columns.known, from_text),
        past=_stack(frame, columns.past, from_text),
    )
    panel, notes = build_panel(rows, columns.known, columns.past, frequency, season_length, has_id=has_id)
    style = FrameStyle(
        backend="pyarrow"
        if frame.implementation.is_pyarrow()
        else "pandas"
        if frame.implementation.is_pandas_like()
        else "polars",
        id=columns.id,
        time=columns.time,
        target=columns.target,
        time_kind=_kind(times, panel.frequency),
        time_zone=times.zone,
        wall_clock=times.wall_clock,
        id_is_integer=id_is_integer,
    )
    return Table(panel, (*_time_notes(times), *notes), style)


def _open(source: Any, columns: Columns) -> Any:
    narwhals = need("narwhals")
    if type(source).__module__.startswith("pandas"):
        named = {columns.id, columns.time} & {name for name in source.index.names if name is not None}
        if hasattr(source, "to_frame"):  # a pandas Series over its times
            source = (
                source.rename(columns.target).rename_axis(source.index.name or columns.time).reset_index()
            )
        elif named:
            source = source.reset_index()
    try:
        frame = narwhals.from_native(source)
    except TypeError as error:
        raise DataError(
            f"a table is a pandas, polars or pyarrow frame or the path of a CSV or Parquet file, "
            f"not {type(source).__name__}"
        ) from error
    return frame.collect() if isinstance(frame, narwhals.LazyFrame) else frame


def _check_columns(frame: Any, columns: Columns) -> bool:
    """Every named column is there; returns whether an id column is."""
    needed = [columns.time, columns.target, *columns.known, *columns.past]
    if columns.id != Columns.id:
        needed.insert(0, columns.id)
    for name in needed:
        if name not in frame.columns:
            near = get_close_matches(name, frame.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"there is no column {name!r}; the table has {', '.join(map(repr, frame.columns))}{hint}"
            )
    return columns.id in frame.columns


def _stack(frame: Any, names: tuple[str, ...], from_text: bool) -> np.ndarray:
    parts = [read_numbers(frame[name], name, from_text) for name in names]
    return np.stack(parts, axis=1) if parts else np.zeros((len(frame), 0))


def _kind(times: Times, frequency: Frequency) -> str:
    """Hourly data that happens to show midnights only is still hourly."""
    return "datetime" if times.kind == "date" and frequency.unit in ("s", "min", "h") else times.kind


def _time_notes(times: Times) -> tuple[str, ...]:
    if times.zone is None or times.wall_clock:
        return ()
    return (f"times are in the zone {times.zone}; features of the time of day count in UTC",)
