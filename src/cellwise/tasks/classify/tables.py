"""What people have, read into `Examples`: files, frames, lists of texts, arrays."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.classify.arrays import read_arrays
from cellwise.tasks.classify.columns import Columns
from cellwise.tasks.classify.examples import SERIES, TEXT, Channel, Examples, as_label
from cellwise.tasks.classify.labelled_texts import read_class_folders, read_prefixed
from cellwise.tasks.classify.long_table import read_long
from cellwise.tasks.classify.ts_file import read_ts
from cellwise.tasks.classify.ucr_file import UCR_SUFFIXES, UcrFile, read_ucr
from cellwise.tasks.data.files import read_file
from cellwise.tasks.data.json_lines import JSON_SUFFIXES, read_json_lines
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown, shown_names
from cellwise.tasks.data.tabbed import TABBED_SUFFIXES, read_tabbed
from cellwise.tasks.errors import DataError

__all__ = ["read_examples"]


def read_examples(source: Any, columns: Columns) -> Examples:
    """Read texts or series.

    source: the path of a CSV, TSV, JSON Lines, Parquet or .ts file, of a file of the UCR archive, or of a folder with
    a folder of texts for each class; a pandas, polars or pyarrow frame, a table of texts or a long one of series; a
    list or column of texts; a list of arrays (T, C) or (T,); an array (N, T), (N, T, C) or (N, C, T). Examples are
    read already.

    Raises DataError: one sentence on what is wrong and where."""
    if isinstance(source, Examples):
        return source
    made = _read(source, columns)
    if isinstance(source, str | Path):
        made = replace(made, source=Path(source))
    if not len(made):
        raise DataError("there are no sequences")
    wanted = columns.learned
    if wanted is not None and made.kind != wanted.kind:
        words = {TEXT: "texts", SERIES: "series"}
        raise DataError(f"the network was trained on {words[wanted.kind]}, but these are {words[made.kind]}")
    if made.kind == SERIES:
        made = _checked(made, columns)
    return made


def _read(source: Any, columns: Columns) -> Examples:
    if isinstance(source, str | Path):
        return _read_file(Path(source), columns)
    if hasattr(source, "tolist") and getattr(source, "ndim", None) == 1:  # a column, or an array of texts
        source = source.tolist()
    elif hasattr(source, "to_list") and not hasattr(source, "columns"):
        source = source.to_list()
    if isinstance(source, list | tuple):
        if any(isinstance(each, str) for each in source):
            return _texts(source)
        return read_arrays(source, columns)
    if isinstance(source, np.ndarray):
        return read_arrays(source, columns)
    if type(source).__module__.partition(".")[0] == "torch":
        return read_arrays(source.numpy(), columns)
    narwhals = require("narwhals")
    try:
        frame = narwhals.from_native(source)
    except TypeError as error:
        raise DataError(
            "sequences are a file, a frame, a list of texts, a list of arrays (steps, channels) or an array (series, "
            f"channels, steps), not {type(source).__name__}"
        ) from error
    return _read_frame(frame.collect() if isinstance(frame, narwhals.LazyFrame) else frame, columns, Origin())


def _read_file(path: Path, columns: Columns) -> Examples:
    name = path.name.lower()
    if name.endswith((".ts", ".ts.gz")):
        if not path.is_file():
            raise DataError(f"there is no file {path}")
        return _from_ts(path, columns)
    if path.is_dir():
        texts, labels, names = read_class_folders(path, columns.encoding)
        return Examples(TEXT, tuple(texts), tuple(names), labels=tuple(labels))
    if path.is_file() and name.endswith(UCR_SUFFIXES):
        reads_series = columns.learned is not None and columns.learned.kind == SERIES
        ucr = read_ucr(path, columns.encoding, is_expected=reads_series)
        if ucr is not None:
            return _from_ucr(ucr)
        prefixed = read_prefixed(path, columns.encoding)
        if prefixed is not None:
            return replace(_texts(prefixed[0]), labels=tuple(prefixed[1]))
    if name.endswith(JSON_SUFFIXES):
        frame, origin = read_json_lines(path, columns.encoding), Origin()
    else:
        tabbed = (
            read_tabbed(path, columns.encoding) if name.endswith(TABBED_SUFFIXES) and path.is_file() else None
        )
        frame, origin = tabbed or read_file(path, columns.encoding)
    return _read_frame(require("narwhals").from_native(frame), columns, origin)


def _read_frame(frame: Any, columns: Columns, origin: Origin) -> Examples:
    """A narwhals frame: texts where it has the column of texts, a long table where it has that of series."""
    kind = None if columns.learned is None else columns.learned.kind
    for wanted, name in ((TEXT, columns.text), (SERIES, columns.series)):
        if name in frame.columns and kind in (None, wanted):
            break
    else:
        wanted, name = (kind or TEXT), columns.series if kind == SERIES else columns.text
        near = get_close_matches(name, [str(column) for column in frame.columns], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        if origin.is_text and not near and any(" " in str(column).strip() for column in frame.columns):
            hint = "; if its first line is no header, put one with the names of the columns before it"
        needs = {
            TEXT: f"a table of texts has a column {columns.text!r} (text_column, --text, names another)",
            SERIES: f"a long table of series has a column {columns.series!r} (series_column, --series, names another)",
        }
        said = needs[kind] if kind else f"{needs[TEXT]}, and {needs[SERIES]}"
        raise DataError(f"{said}; this one has {shown_names(frame.columns)}{hint}")
    if len(frame) == 0:
        raise DataError("the table has no rows")
    return (_text_table if wanted == TEXT else read_long)(frame, columns, origin)


def _text_table(frame: Any, columns: Columns, origin: Origin) -> Examples:
    column = frame[columns.text]
    if column.dtype.is_nested() or column.dtype == require("narwhals").Binary:
        raise DataError(f"column {columns.text!r} has type {column.dtype}; it must hold texts")
    texts = tuple("" if each is None else str(each) for each in column.to_list())
    names = tuple(str(row + 1) for row in range(len(texts)))
    made = Examples(TEXT, texts, names)
    if columns.label not in frame.columns:
        near = get_close_matches(columns.label, [str(each) for each in frame.columns], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return replace(
            made,
            unlabelled=f"there is no column {columns.label!r}; the table has {shown_names(frame.columns)}{hint}",
        )
    labels = []
    for row, label in enumerate(frame[columns.label].to_list()):
        if label is None or label == "":
            return replace(made, unlabelled=f"column {columns.label!r} is empty at {origin.where(row)}")
        labels.append(as_label(label, names[row]))
    return replace(made, labels=tuple(labels))


def _texts(source: list[Any] | tuple[Any, ...]) -> Examples:
    for row, each in enumerate(source):
        if not isinstance(each, str):
            raise DataError(f"text {row} is {shown(each)}, of type {type(each).__name__}; all must be texts")
    return Examples(TEXT, tuple(map(str, source)), tuple(str(row) for row in range(len(source))))


def _from_ts(path: Path, columns: Columns) -> Examples:
    found = read_ts(path, columns.encoding)
    width = found.values[0].shape[1]
    channels = tuple(Channel(f"x{number + 1}") for number in range(width))
    values = found.values
    if found.times is not None:
        gaps = [np.diff(times, prepend=times[0]) for times in found.times]
        inner = np.concatenate([each[1:] for each in gaps])
        learned = (
            None if columns.learned is None else any(one.is_interval for one in columns.learned.channels)
        )
        if learned if learned is not None else len(inner) and np.ptp(inner) > 1e-3 * np.median(inner):
            channels = (*channels, Channel("step", is_interval=True))
            values = [np.c_[series, gap] for series, gap in zip(values, gaps, strict=True)]
    names = tuple(str(row) for row in range(len(values)))
    made = Examples(SERIES, tuple(values), names, channels=channels, unlabelled=f"{path} has no class labels")
    return made if found.labels is None else made.labelled(found.labels)


def _from_ucr(found: UcrFile) -> Examples:
    names = tuple(str(row) for row in range(len(found.values)))
    note = "the file has no header: each line is taken as a class and the values of a series, as the UCR archive has it"
    series = tuple(values[:, None] for values in found.values)
    return Examples(SERIES, series, names, tuple(found.labels), channels=(Channel("x1"),), notes=(note,))


def _checked(examples: Examples, columns: Columns) -> Examples:
    """Series without a value that is none: missing steps at the end are cut off, others refused or filled."""
    learned = columns.learned
    if learned is not None and len(learned.channels) != len(examples.channels):
        raise DataError(
            f"the network reads {len(learned.channels)} channels, but these series have {len(examples.channels)}"
        )
    made, shortened, filled = [], 0, 0
    for name, values in zip(examples.names, examples.inputs, strict=True):
        if np.isinf(values).any():
            step, channel = (int(each[0]) for each in np.nonzero(np.isinf(values)))
            raise DataError(
                f"series {shown(name)} holds an infinite value at step {step}, channel {channel + 1}"
            )
        missing = np.isnan(values)
        if missing.any():
            present = np.flatnonzero(~missing.all(axis=1))
            end = int(present[-1]) + 1 if len(present) else 0
            shortened += end < len(values)
            values, missing = values[:end], missing[:end]
        if not len(values):
            raise DataError(f"series {shown(name)} has no values; leave it out")
        if missing.any():
            if columns.missing == "refuse":
                step, channel = (int(each[0]) for each in np.nonzero(missing))
                raise DataError(
                    f"series {shown(name)} has no value at step {step}, channel {channel + 1}; fill it, or let "
                    "missing='carry' (--missing carry) carry the last value forward"
                )
            filled += 1
            values = _carried(values, missing)
        made.append(values)
    notes = examples.notes
    if shortened:
        notes += (f"{shortened:,} series end in missing values, which were cut off",)
    if filled:
        notes += (f"missing values in {filled:,} series were filled with the last value before them",)
    return replace(examples, inputs=tuple(made), notes=notes)


def _carried(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Each missing value as the last one before it; before the first, as the first one, or 0 if there is none."""
    made = values.copy()
    for column, gone in zip(made.T, missing.T, strict=True):
        there = np.flatnonzero(~gone)
        if not len(there):
            column[:] = 0.0
            continue
        last = np.maximum.accumulate(np.where(gone, 0, np.arange(len(column))))
        column[:] = column[np.maximum(last, there[0])]
    return made
