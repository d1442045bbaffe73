"""Reading a CSV or Parquet file. A CSV is read as text: numbers and dates are understood later, column by
column, so that a bad one can be named with its line."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from cellwise.tasks.forecasting.errors import DataError
from cellwise.tasks.forecasting.extras import need

__all__ = ["check_writable", "read_file", "round_floats", "to_csv", "write_file"]

TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")
PARQUET_SUFFIXES = (".parquet", ".pq")


def read_file(path: Path) -> Any:
    """A polars frame; all columns are text if the file is."""
    polars = need("polars")
    if not path.exists():
        raise DataError(f"there is no file {path}{_hint(path)}")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a CSV or Parquet file")
    name = path.name.lower()
    if not name.endswith(TEXT_SUFFIXES + PARQUET_SUFFIXES):
        raise DataError(
            f"{path} is neither CSV nor Parquet by its name (.csv, .csv.gz, .tsv, .txt, .parquet)"
        )
    try:
        if name.endswith(PARQUET_SUFFIXES):
            frame = polars.read_parquet(path)
        else:
            frame = polars.read_csv(
                path,
                infer_schema=False,
                separator=_separator(path),
                encoding="utf8-lossy",
            )
    except polars.exceptions.NoDataError as error:
        raise DataError(f"the file {path} is empty") from error
    except (polars.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{path} cannot be read: {reason}") from error
    if frame.height == 0:
        raise DataError(f"the file {path} has columns ({', '.join(frame.columns)}) but no rows")
    return frame


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
    polars = need("polars")
    return frame.with_columns(polars.selectors.float().round_sig_figs(7))


def _separator(path: Path) -> str:
    """The one of , ; and tab that the header line holds most of."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        header = file.readline()
    return max(",;\t", key=lambda mark: header.count(mark.encode()))


def _hint(path: Path) -> str:
    from difflib import get_close_matches

    folder = path.parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist either"
    near = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    return f"; did you mean {folder / near[0]}?" if near else ""
