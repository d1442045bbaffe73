"""Reading and writing files. A CSV is read as text: numbers and dates are understood later, column by column,
so that a bad one can be named with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellwise.tasks.data.child_reader import read_in_child
from cellwise.tasks.data.delimited import read_delimited
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown_names
from cellwise.tasks.data.workbook import EXCEL, read_workbook, write_workbook
from cellwise.tasks.errors import DataError

__all__ = ["TABLES", "check_writable", "is_table", "read_file", "round_floats", "to_csv", "write_file"]
__all__ += ["write_rows"]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")
EXCEL_SUFFIXES = (".xlsx", ".xlsm")
OTHER_WORKBOOKS = (".xls", ".xlsb", ".ods", ".numbers")
PARQUET_MARK = b"PAR1"
TABLES = (".csv", ".xlsx", ".parquet", ".pq", ".jsonl")  # what `write_file` writes


def read_file(path: Path, encoding: str | None = None, sheet: str | None = None) -> tuple[Any, Origin]:
    """A polars frame, and where its rows came from; all columns are text if the file is.

    encoding: of a text file; sheet: of a workbook. Raises DataError."""
    require("polars")
    if not path.exists():
        raise DataError(f"there is no file {path}{_hint(path)}")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a CSV, Excel or Parquet file")
    name = path.name.lower()
    if name.endswith(OTHER_WORKBOOKS):
        raise DataError(f"{path} is a workbook of a kind that is not read; save it as .xlsx or CSV")
    if not name.endswith(TEXT_SUFFIXES + PARQUET_SUFFIXES + EXCEL_SUFFIXES):
        raise DataError(
            f"{path} is neither CSV, Excel nor Parquet by its name (.csv, .csv.gz, .tsv, .txt, .xlsx, .parquet)"
        )
    if sheet is not None and not name.endswith(EXCEL_SUFFIXES):
        raise DataError(f"{path} has no sheets, only an Excel workbook has; leave sheet ({sheet!r}) out")
    if not path.is_file():
        raise DataError(f"{path} is no regular file; write the data to one")
    try:
        if name.endswith(PARQUET_SUFFIXES):
            frame, origin = read_parquet(path), Origin()
        elif name.endswith(EXCEL_SUFFIXES):
            frame, origin = read_workbook(path, sheet)
        else:
            frame, origin = read_delimited(path, encoding)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if frame.height == 0:
        raise DataError(f"the file {path} has columns ({shown_names(frame.columns)}) but no rows")
    return frame, origin


def read_parquet(path: Path) -> Any:
    """A polars frame. DataError if the file is no whole Parquet file.

    It is read by a process of its own, see `reader_process`."""
    polars = require("polars")
    with path.open("rb") as file:
        head = file.read(4)
        size = file.seek(0, 2)
        tail = b"" if size < 12 else (file.seek(-8, 2), file.read(8))[1]
    footer = int.from_bytes(tail[:4], "little")
    if head != PARQUET_MARK or tail[4:] != PARQUET_MARK or footer + 12 > size:
        raise DataError(f"{path} cannot be read: it is no Parquet file, or cut off")
    return polars.read_ipc_stream(read_in_child("parquet", path))


def is_table(path: Path) -> bool:
    """Whether `write_file` knows files of this name."""
    return path.name.lower().endswith(TABLES)


def check_writable(path: Path) -> None:
    """DataError unless `write_file` can write files of this name; TaskError if it lacks a package for that."""
    if path.is_dir() or not is_table(path):
        raise DataError(f"tables are written to a file named {_or(TABLES)}, not to {path}")
    if path.name.lower().endswith(".xlsx"):
        require("xlsxwriter", EXCEL)


def write_file(made: Any, path: Path) -> None:
    """Write a polars frame as its file's name says, whole or not at all.

    Several frames by name are the sheets of a workbook; another file has room for the first."""
    check_writable(path)
    sheets = dict(made) if isinstance(made, Mapping) else {"Sheet1": made}
    name, first = path.name.lower(), next(iter(sheets.values()))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if name.endswith(".csv"):
        part.write_text(to_csv(first), encoding="utf8")
    elif name.endswith(".xlsx"):
        write_workbook(sheets, part)
    elif name.endswith(".jsonl"):
        first.write_ndjson(part)
    else:
        first.write_parquet(part)
    part.replace(path)


def write_rows(rows: Any, path: Path) -> str:
    """Write a polars frame, or rows as mappings, as `write_file` does; returns how many, in words."""
    polars = require("polars")
    frame = rows if isinstance(rows, polars.DataFrame) else polars.DataFrame(rows)
    write_file(frame, path)
    return f"{frame.height:,} {'row' if frame.height == 1 else 'rows'}"


def to_csv(frame: Any) -> str:
    """A polars frame as CSV, times as one writes them."""
    text: str = frame.write_csv(datetime_format="%Y-%m-%d %H:%M:%S")
    return text


def round_floats(frame: Any) -> Any:
    """A polars frame whose numbers have the seven digits that a float32 network knows."""
    polars = require("polars")
    return frame.with_columns(polars.selectors.float().round_sig_figs(7))


def _or(endings: tuple[str, ...]) -> str:
    *most, last = endings
    return f"{', '.join(most)} or {last}"


def _hint(path: Path) -> str:
    from difflib import get_close_matches

    folder = path.parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist either"
    near = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    return f"; did you mean {folder / near[0]}?" if near else ""
