"""Reading and writing Excel workbooks (.xlsx).

Reading is python-calamine's, in a process of its own: no macro runs, no formula is computed (its stored value counts),
and what unpacks to far more than it weighs is refused. Writing is XlsxWriter's: text is written as text, also one that
begins with "=", so a name can never become a formula."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.data.child_reader import read_in_child
from cellwise.tasks.data.header import column_names
from cellwise.tasks.data.numerals import MISSING
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown, shown_names
from cellwise.tasks.errors import DataError

__all__ = ["EXCEL", "MOST_ROWS", "read_workbook", "write_workbook"]

EXCEL = ("python-calamine", "xlsxwriter")  # packages, the extra `excel`
ZIP, OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
# A sheet of equal cells may shrink a lot, but not to this share; what does was made to fill a memory.
MOST_UNPACKED, SAFE_UNPACKED, MOST_PARTS = 200, 256 * 2**20, 10_000
TITLE_ROWS = 30  # that may stand above the header
MOST_ROWS = 2**20 - 1  # of a sheet, below its header
WIDEST = 40  # letters that a column is made wide for


def read_workbook(path: Path, sheet: str | None = None) -> tuple[Any, Origin]:
    """A polars frame of one worksheet, by default the first that is not hidden, and where its rows stand in it.

    The header is the first row with at least two cells, and half as many as the fullest; a note says which rows stand
    above it. A column of numbers, or of dates, has that type; a column that holds anything else is text.

    Raises DataError: one sentence on what is wrong.
    """
    polars = require("polars")
    require("python_calamine", EXCEL)
    _check_archive(path)
    names, cells = read_in_child("sheet", path, *(() if sheet is None else (sheet,))).split(b"\n", 1)
    *sheets, name = names.decode().split("\t")
    frame = polars.read_ipc_stream(BytesIO(cells))
    filled = frame.select(each.is_not_null() for each in frame).to_numpy().reshape(frame.shape)
    if not filled.any():
        raise DataError(f"sheet {shown(name)} of {path} is empty")
    header = _header_row(filled)
    columns = np.flatnonzero(filled[header:].any(axis=0))
    rows = np.flatnonzero(filled.any(axis=1))
    above, rows = rows[rows < header], rows[rows > header]
    titles = _names(frame, header, columns, path)
    if not len(rows):
        raise DataError(f"sheet {shown(name)} of {path} has columns ({shown_names(titles)}) but no rows")
    made = polars.DataFrame(
        [_typed(frame[:, int(i)].gather(rows).alias(title)) for i, title in zip(columns, titles, strict=True)]
    )
    notes = (*_note_on_sheets(sheets, name, sheet), *_note_on_titles(frame, above, name))
    return made, Origin(decimal_comma=True, sheet=name, rows=rows + 1, notes=notes)


def _check_archive(path: Path) -> None:
    """DataError unless it is a ZIP archive of a sane size by its directory; what lies in it is read by the child."""
    with path.open("rb") as file:
        mark = file.read(4)
    if mark == OLE:
        raise DataError(
            f"{path} is an old workbook (.xls) or has a password; save it as .xlsx, without a password"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(f"{path} cannot be read: it is no .xlsx workbook, or cut off") from error
    size = sum(part.file_size for part in parts)
    if size > max(SAFE_UNPACKED, MOST_UNPACKED * path.stat().st_size) or len(parts) > MOST_PARTS:
        raise DataError(
            f"{path} unpacks to {size:,} bytes in {len(parts):,} parts, too much for a workbook of "
            f"{path.stat().st_size:,}; save the sheet as CSV"
        )


def _header_row(filled: np.ndarray) -> int:
    """filled (R, C): whether a cell holds anything."""
    counts = filled[: TITLE_ROWS + 1].sum(axis=1)
    fullest = counts.max()
    return int((counts >= max(min(2, fullest), fullest / 2)).argmax())


def _names(frame: Any, header: int, columns: np.ndarray, path: Path) -> list[str]:
    """The names of the columns; a date is written as YYYY-MM-DD."""
    cells = [frame[header, int(i)] for i in columns]
    texts = ["" if cell is None else cell[1:] for cell in cells]
    return column_names(texts, f"row {header + 1} of {path}", path, "a row with names")


def _typed(column: Any) -> Any:
    """Cells with their kinds as numbers, dates or text."""
    polars = require("polars")
    kinds, texts = column.str.head(1), column.str.slice(1)
    # A word for "nothing there" among numbers is an empty cell.
    nothing = (kinds == "t") & texts.str.strip_chars().str.to_lowercase().is_in(MISSING)
    if set(kinds.drop_nulls()) == {"n", "t"}:
        kinds, texts = kinds.set(nothing, None), texts.set(nothing, None)
    found = set(kinds.drop_nulls())
    if found and found <= {"n", "b"}:
        is_whole = not texts.str.contains(r"[.einEIN]").any()
        return texts.cast(polars.Int64 if is_whole else polars.Float64)
    if found == {"d"}:
        days = (texts.str.len_bytes() == len("2024-01-01")).fill_null(False)
        times = texts.set(days, None).fill_null(texts + " 00:00:00")
        # a spreadsheet keeps times as fractions of a day: a millisecond of them is noise
        made = times.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us")
        return made.dt.round("1s") if _is_noise(made) else made
    return texts


def _is_noise(times: Any) -> bool:
    away = (times - times.dt.round("1s")).dt.total_microseconds().abs().max()
    return 0 < (away or 0) <= 1000


def _note_on_sheets(sheets: list[str], name: str, given: str | None) -> tuple[str, ...]:
    if given is not None or len(sheets) < 2:
        return ()
    return (
        f"sheet {shown(name)} was read, the first of {len(sheets)} ({shown_names(sheets)}); --sheet NAME reads another",
    )


def _note_on_titles(frame: Any, above: np.ndarray, name: str) -> tuple[str, ...]:
    if not len(above):
        return ()
    first = next(cell for cell in frame.row(int(above[0])) if cell is not None)[1:]
    rows = "row" if len(above) == 1 else "rows"
    numbers = ", ".join(str(i + 1) for i in above)
    return (f"{rows} {numbers} of sheet {shown(name)}, above the header, left out ({shown(first)})",)


# --- writing ----------------------------------------------------------------------------------------------------


def write_workbook(sheets: Mapping[str, Any], path: Path) -> None:
    """Write polars frames as the sheets of a workbook. DataError if one has more rows than a sheet can hold."""
    for name, frame in sheets.items():
        if frame.height > MOST_ROWS:
            raise DataError(
                f"a sheet of Excel holds {MOST_ROWS:,} rows, and {name} has {frame.height:,}; write .csv or .parquet"
            )
    xlsxwriter = require("xlsxwriter", EXCEL)
    book = xlsxwriter.Workbook(str(path), {"in_memory": True})
    bold = book.add_format({"bold": True, "bottom": 1})
    formats: dict[type, Any] = {
        date: book.add_format({"num_format": "yyyy-mm-dd"}),
        datetime: book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"}),
    }
    for name, frame in sheets.items():
        sheet = book.add_worksheet(name)
        sheet.freeze_panes(1, 0)
        for column, title in enumerate(frame.columns):
            sheet.write_string(0, column, title, bold)
            values = _cells(frame[title])
            for row, value in enumerate(values, 1):
                _write_cell(sheet, row, column, value, formats)
            sheet.set_column(column, column, _width(title, values))
    book.close()


def _cells(column: Any) -> list[Any]:
    """What Excel knows: times of a zone as its clocks show them."""
    polars = require("polars")
    if column.dtype == polars.Datetime and column.dtype.time_zone is not None:
        column = column.dt.replace_time_zone(None)
    cells: list[Any] = column.to_list()
    return cells


def _write_cell(sheet: Any, row: int, column: int, value: Any, formats: Mapping[type, Any]) -> None:
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int | float):
        if np.isfinite(value):
            sheet.write_number(row, column, value)
    elif isinstance(value, date):  # a datetime is one
        sheet.write_datetime(row, column, value, formats[type(value)])
    elif value is not None:
        sheet.write_string(row, column, str(value))


def _width(title: str, values: Iterable[Any]) -> int:
    longest = max((len(str(value)) for value in values if not isinstance(value, float)), default=0)
    return min(WIDEST, max(len(title), longest, 8) + 2)
