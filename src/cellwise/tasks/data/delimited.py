"""Delimited text (CSV and its kind) to a frame of text columns.

Before the values are read, the records are counted with their fields: a line that is cut short, or holds
too much, is named instead of being filled up."""

from __future__ import annotations

import csv
import io
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.data.encoding import line_at, read_bytes, to_utf8
from cellwise.tasks.data.header import column_names, is_value
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown, shown_names
from cellwise.tasks.errors import DataError

__all__ = ["read_delimited"]

SEPARATORS = ",;\t|"
CHUNK = 4 * 2**20  # bytes looked at together
NEWLINE, QUOTE = ord("\n"), ord('"')
HEAD, TITLE_LINES = 2**16, 30  # bytes and lines among which the header stands


@dataclass(frozen=True, eq=False)
class Records:
    """starts, ends (R + 1,): where each record lies in the text, the header first; fields (R + 1,): how many it
    has."""

    starts: np.ndarray
    ends: np.ndarray
    fields: np.ndarray

    def take(self, chosen: np.ndarray) -> Records:
        """These records only."""
        return Records(self.starts[chosen], self.ends[chosen], self.fields[chosen])


def read_delimited(path: Path, encoding: str | None = None) -> tuple[Any, Origin]:
    """A polars frame whose columns are all text, and where its rows stand in the file.

    Raises DataError: one sentence on what is wrong, and in which line.
    """
    polars = require("polars")
    raw = read_bytes(path)
    data = to_utf8(raw, path, encoding)
    if not data.strip():
        raise DataError(f"the file {path} is empty")
    begin, separator = _separator(data)
    begin, notes = _below_titles(data, begin, separator)
    records = _without_blank(data, _scan(data, begin, separator, path))
    names = _header(data, records, separator, path)
    _refuse_ragged(data, records, len(names), path)
    if len(records.starts) == 1:
        raise DataError(f"the file {path} has columns ({shown_names(names)}) but no rows")
    whole = data if _is_dense(data, records) else _join(data, records)
    try:
        frame = polars.read_csv(whole, infer_schema=False, separator=separator)
    except polars.exceptions.PolarsError as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path} cannot be read: {reason}") from error
    if frame.shape != (len(records.starts) - 1, len(names)):
        raise DataError(f"{path} cannot be read: its quotes do not belong together")
    frame.columns = names
    filled = frame.select(~polars.all_horizontal(polars.all().is_null())).to_series()
    if not filled.all():  # lines of separators alone, as spreadsheets leave them
        frame = frame.filter(filled)
        records = records.take(np.r_[True, filled.to_numpy()])
        if frame.height == 0:
            raise DataError(f"the file {path} has columns ({shown_names(names)}) but no rows")
    # a spreadsheet's "Unicode text", UTF-16 with tabs, has the decimal mark of its country too
    of_country = separator == ";" or (separator == "\t" and raw[:2] in (BOM_UTF16_LE, BOM_UTF16_BE))
    return frame, Origin(data, records.starts[1:], decimal_comma=of_country, notes=notes)


def _separator(data: bytes) -> tuple[int, str]:
    """Where the header begins, and what stands between its names: told by a first line `sep=;`, else the mark
    that it holds most of."""
    blank = re.match(rb"(?:[ \t\r]*\n)*", data)
    begin = blank.end() if blank else 0
    end = data.find(b"\n", begin)
    line = data[begin : end if end >= 0 else None].rstrip(b"\r")
    told = re.fullmatch(rb'"?sep=([!-~\t])"?[,;\t]*', line, re.IGNORECASE)
    if told and end >= 0:
        return end + 1, told.group(1).decode("ascii")
    if not any(_marks(line)):  # a title: what stands below it has the marks
        line = max(data[begin : begin + HEAD].splitlines()[:TITLE_LINES], key=lambda each: max(_marks(each)))
    counts = _marks(line)
    return begin, SEPARATORS[counts.index(max(counts))]


def _marks(line: bytes) -> list[int]:
    """How often each separator stands in a line, outside of quotes."""
    outside = re.sub(rb'"[^"]*"', b"", line)
    return [outside.count(mark.encode()) for mark in SEPARATORS]


def _below_titles(data: bytes, begin: int, separator: str) -> tuple[int, tuple[str, ...]]:
    """Where the header begins, below lines in which at most one field holds anything, and a note on those."""
    start, lines = begin, list[tuple[int, str]]()
    while len(lines) <= TITLE_LINES:
        end = data.find(b"\n", start)
        line = data[start : end if end >= 0 else None].decode("utf-8").strip()
        if line.count('"') % 2:  # a title of several lines
            break
        outside = re.sub(r'"[^"]*"', lambda quoted: quoted.group().replace(separator, " "), line)
        fields = [field.strip(' "') for field in outside.split(separator)]
        if sum(map(bool, fields)) >= 2:
            if not lines or sum(map(is_value, fields)) > len(fields) / 2:
                break
            numbers = ", ".join(str(line_at(data, at)) for at, _ in lines)
            word = "line" if len(lines) == 1 else "lines"
            return start, (f"{word} {numbers}, above the header, left out ({shown(lines[0][1])})",)
        if any(fields):
            lines.append((start, next(filter(None, fields))))
        if end < 0:
            break
        start = end + 1
    return begin, ()


def _scan(data: bytes, begin: int, separator: str, path: Path) -> Records:
    """Find the records from `begin` on, a chunk at a time; newlines and separators within quotes are text."""
    whole, mark = np.frombuffer(data, np.uint8), ord(separator)
    ends, counts, quoted, passed = [], [], 0, 0
    opened = begin  # just behind the last byte outside of quotes
    for start in range(begin, len(whole), CHUNK):
        part = whole[start : start + CHUNK]
        newlines, marks = part == NEWLINE, part == mark
        quotes = part == QUOTE
        opened = opened if quoted else start
        if quoted or quotes.any():
            outside = ((np.cumsum(quotes, dtype=np.uint8) + quoted) & 1) == 0
            quoted = int(not outside[-1])
            newlines, marks = newlines & outside, marks & outside
            if outside.any():
                opened = start + int(np.flatnonzero(outside)[-1]) + 1
        at = np.flatnonzero(newlines)
        before = np.cumsum(marks, dtype=np.int32)
        ends.append(start + at)
        counts.append(passed + before[at].astype(np.int64))
        passed += int(before[-1])
    if quoted:
        raise DataError(f"{path} holds a quote in line {line_at(data, opened)} that no other one closes")
    if data[-1] != NEWLINE:
        ends.append(np.array([len(data)]))
        counts.append(np.array([passed]))
    end, count = np.concatenate(ends), np.concatenate(counts)
    return Records(np.r_[begin, end[:-1] + 1], end, np.diff(count, prepend=0) + 1)


def _without_blank(data: bytes, records: Records) -> Records:
    """Lines without anything in them are no records."""
    maybe = np.flatnonzero(records.fields == 1)
    blank = [i for i in maybe if not data[records.starts[i] : records.ends[i]].strip()]
    if not blank:
        return records
    keep = np.ones(len(records.starts), dtype=bool)
    keep[blank] = False
    return records.take(keep)


def _header(data: bytes, records: Records, separator: str, path: Path) -> list[str]:
    line = data[records.starts[0] : records.ends[0]].decode("utf-8").rstrip("\r")
    begin_line = line_at(data, int(records.starts[0]))
    try:
        names = next(csv.reader(io.StringIO(line, newline=""), delimiter=separator))
    except (csv.Error, StopIteration) as error:
        raise DataError(f"{path}: the first line does not name the columns ({error})") from error
    place = "the first line" if begin_line == 1 else f"line {begin_line}"
    return column_names(names, f"{place} of {path}", path, f"a line such as ds{separator}y")


def _refuse_ragged(data: bytes, records: Records, width: int, path: Path) -> None:
    wrong = np.flatnonzero(records.fields != width)
    if len(wrong):
        first = int(wrong[0])
        line, found = line_at(data, int(records.starts[first])), int(records.fields[first])
        raise DataError(
            f"{path}: line {line} has {found} {'field' if found == 1 else 'fields'}, but the header names "
            f"{width} columns; the line is cut off, or a mark is missing or too many"
        )


def _is_dense(data: bytes, records: Records) -> bool:
    """Whether the records follow each other, from the first byte to the last."""
    starts, ends = records.starts, records.ends
    return bool(starts[0] == 0 and ends[-1] + 1 >= len(data) and (starts[1:] == ends[:-1] + 1).all())


def _join(data: bytes, records: Records) -> bytes:
    """The records alone."""
    breaks = np.flatnonzero(records.starts[1:] != records.ends[:-1] + 1)
    firsts, lasts = np.r_[0, breaks + 1], np.r_[breaks, len(records.starts) - 1]
    return b"\n".join(data[records.starts[i] : records.ends[j]] for i, j in zip(firsts, lasts, strict=True))
