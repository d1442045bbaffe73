"""Reading and writing files. A CSV is read as text: numbers and dates are understood later, column by column,
so that a bad one can be named with its line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from cellwise.tasks.data import parquet_process
from cellwise.tasks.data.delimited import read_delimited
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shortened, shown_names
from cellwise.tasks.errors import DataError

__all__ = ["check_writable", "read_file", "round_floats", "to_csv", "write_file"]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")
PARQUET_MARK = b"PAR1"
READER = Path(parquet_process.__file__)
SECONDS, BYTES_PER_SECOND = 60.0, 10**6  # that a Parquet file may take to be read


def read_file(path: Path, encoding: str | None = None) -> tuple[Any, Origin]:
    """A polars frame, and where its rows came from; all columns are text if the file is."""
    require("polars")
    if not path.exists():
        raise DataError(f"there is no file {path}{_hint(path)}")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a CSV or Parquet file")
    name = path.name.lower()
    if not name.endswith(TEXT_SUFFIXES + PARQUET_SUFFIXES):
        raise DataError(
            f"{path} is neither CSV nor Parquet by its name (.csv, .csv.gz, .tsv, .txt, .parquet)"
        )
    if not path.is_file():
        raise DataError(f"{path} is no regular file; write the data to one")
    try:
        if name.endswith(PARQUET_SUFFIXES):
            frame, origin = read_parquet(path), Origin()
        else:
            frame, origin = read_delimited(path, encoding)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if frame.height == 0:
        raise DataError(f"the file {path} has columns ({shown_names(frame.columns)}) but no rows")
    return frame, origin


def read_parquet(path: Path) -> Any:
    """A polars frame. DataError if the file is no whole Parquet file.

    It is read by a process of its own, see `parquet_process`."""
    polars = require("polars")
    with path.open("rb") as file:
        head = file.read(4)
        size = file.seek(0, 2)
        tail = b"" if size < 12 else (file.seek(-8, 2), file.read(8))[1]
    footer = int.from_bytes(tail[:4], "little")
    if head != PARQUET_MARK or tail[4:] != PARQUET_MARK or footer + 12 > size:
        raise DataError(f"{path} cannot be read: it is no Parquet file, or cut off")
    command = [sys.executable, "-P", str(READER), str(path)]
    try:
        made = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS + size / BYTES_PER_SECOND,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{path} cannot be read: it takes longer than {error.timeout:.0f} s") from error
    if made.returncode != 0:
        lines = made.stderr.decode("utf-8", errors="backslashreplace").strip().splitlines()
        panic = f"the reader ended with status {made.returncode}; the file is damaged, or unpacks to too much"
        reason = lines[-1] if lines and made.returncode == parquet_process.REFUSED else panic
        raise DataError(f"{path} cannot be read: {shortened(reason)}")
    return polars.read_ipc_stream(made.stdout)


def check_writable(path: Path) -> None:
    """DataError unless `write_file` can write files of this name."""
    if path.is_dir() or not path.name.lower().endswith((*PARQUET_SUFFIXES, ".csv")):
        raise DataError(f"forecasts are written to a file named .csv or .parquet, not to {path}")


def write_file(frame: Any, path: Path) -> None:
    """Write a polars frame as CSV or Parquet, whole or not at all."""
    check_writable(path)
    name = path.name.lower()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if name.endswith(".csv"):
        part.write_text(to_csv(frame), encoding="utf8")
    else:
        frame.write_parquet(part)
    part.replace(path)


def to_csv(frame: Any) -> str:
    """A polars frame as CSV, times as one writes them."""
    text: str = frame.write_csv(datetime_format="%Y-%m-%d %H:%M:%S")
    return text


def round_floats(frame: Any) -> Any:
    """A polars frame whose numbers have the seven digits that a float32 network knows."""
    polars = require("polars")
    return frame.with_columns(polars.selectors.float().round_sig_figs(7))


def _hint(path: Path) -> str:
    from difflib import get_close_matches

    folder = path.parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist either"
    near = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    return f"; did you mean {folder / near[0]}?" if near else ""
