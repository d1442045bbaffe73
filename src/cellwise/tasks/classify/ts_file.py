"""Files in the .ts format of aeon and sktime: a header of `@` lines, then a series a line.

`1,2,3:4,5,6:a` is a series of two channels, three steps and the class a; `(0,1.5),(2,1.7):a` has its times. `?` is a
missing value (Bagnall et al. 2018, "The UEA multivariate time series classification archive")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellwise.tasks.data.encoding import read_bytes, to_utf8
from cellwise.tasks.data.origin import shown
from cellwise.tasks.errors import DataError

__all__ = ["TsFile", "read_ts"]


@dataclass(frozen=True, eq=False)
class TsFile:
    """values: arrays (T, D) with NaN where missing; times: (T,) of each, or None; labels: text of each, or None; lines:
    of each, the first of the file is 1."""

    values: list[np.ndarray]
    times: list[np.ndarray] | None
    labels: list[str] | None
    lines: list[int]


def read_ts(path: Path, encoding: str | None = None) -> TsFile:
    """Read a .ts file. DataError names the line that cannot be understood."""
    text = to_utf8(read_bytes(path), path, encoding).decode("utf8")
    header, begin = _header(text, path)
    has_label = header.get("classlabel", header.get("targetlabel", "false")).split(" ")[0].lower() == "true"
    has_times = header.get("timestamps", "false").lower() == "true"
    values: list[np.ndarray] = []
    times: list[np.ndarray] = []
    labels: list[str] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines()[begin:], begin + 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # a time may hold a colon itself, within its bracket
        fields = re.split(r"(?<=\)):" if has_times else ":", line.strip())
        *parts, last = fields if has_label else [*fields, ""]
        if not parts:
            raise DataError(f"{path}: line {number} has a class and no values")
        series, when = _series(parts, has_times, f"{path}: line {number}")
        if values and series.shape[1] != values[0].shape[1]:
            raise DataError(
                f"{path}: line {number} has {series.shape[1]} channels, but the series before it has "
                f"{values[0].shape[1]}"
            )
        values.append(series)
        times.append(when)
        labels.append(last.strip())
        lines.append(number)
    if not values:
        raise DataError(f"{path} has no series after @data")
    return TsFile(values, times if has_times else None, labels if has_label else None, lines)


def _header(text: str, path: Path) -> tuple[dict[str, str], int]:
    """What the header says, in lower case names, and how many lines there are before the data."""
    header: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if word.lower() == "@data":
            return header, number
        if word.startswith("@"):
            name, _, value = word[1:].replace("\t", " ").partition(" ")
            header[name.lower()] = value.strip()
    raise DataError(f"{path} is no .ts file: it has no line @data before its series")


def _series(parts: list[str], has_times: bool, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The channels of a line as (T, D), and the times (T,)."""
    channels, times = [], None
    for part in parts:
        if has_times:
            pairs = [each.split(",") for each in re.split(r"\)\s*,\s*\(", part.strip().strip("()"))]
            if any(len(pair) != 2 for pair in pairs):
                raise DataError(f"{where} is to have (time, value) pairs, but holds {shown(part)}")
            when, column = _times([a for a, _ in pairs], where), _numbers([b for _, b in pairs], where)
            if times is not None and not np.array_equal(when, times):
                raise DataError(f"{where} has channels with other times than its first; give all the same")
            times = when
        else:
            column = _numbers(part.split(","), where)
        channels.append(column)
    lengths = {len(column) for column in channels}
    if len(lengths) != 1:
        # Some files fill up the channels that end early with missing values, others leave them out: the same thing.
        longest = max(lengths)
        channels = [np.r_[column, np.full(longest - len(column), np.nan)] for column in channels]
    series = np.stack(channels, axis=1)
    return series, np.arange(len(series), dtype=float) if times is None else times


def _times(words: list[str], where: str) -> np.ndarray:
    """Numbers as they are, dates in seconds."""
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        pass
    try:
        dates = np.array([word.strip().replace(" ", "T") for word in words], dtype="datetime64[us]")
    except ValueError as error:
        raise DataError(
            f"{where} holds times such as {shown(words[0])}, which are no dates and no numbers"
        ) from error
    return dates.astype(np.int64) / 1e6


def _numbers(words: list[str], where: str) -> np.ndarray:
    try:
        return np.array(
            [np.nan if word.strip() in ("?", "NaN", "nan", "") else float(word) for word in words]
        )
    except ValueError as error:
        bad = str(error).partition(":")[2].strip()
        raise DataError(f"{where} holds {bad}, which is no number") from error
