"""Series in a long table: a row for each series and step."""

from __future__ import annotations

from typing import Any

import numpy as np

from cellwise.tasks.classify.columns import Columns
from cellwise.tasks.classify.examples import SERIES, Channel, Examples, as_label
from cellwise.tasks.data.columns import as_text, read_names, read_numbers
from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import Origin, shown, shown_names
from cellwise.tasks.data.times import TimeColumn, read_times
from cellwise.tasks.errors import DataError

__all__ = ["read_long"]

MOST_CATEGORIES = 100
EVEN = 1e-3  # of the typical step: times that differ by less are evenly spaced


def read_long(frame: Any, columns: Columns, origin: Origin) -> Examples:
    """Read a narwhals frame. Steps are sorted; series keep the order in which they first appear.

    Raises DataError: one sentence on what is wrong and where."""
    names, _ = read_names(frame[columns.series], columns.series, origin)
    unique, first, member = np.unique(names, return_index=True, return_inverse=True)
    order_of_names = np.argsort(np.argsort(first))
    member = order_of_names[member]
    unique = unique[np.argsort(first)]
    notes: tuple[str, ...] = ()
    step = np.arange(len(names), dtype=np.float64)
    has_steps = columns.step in frame.columns
    if has_steps:
        step = _steps(frame[columns.step], columns.step, names, origin)
    rows = np.lexsort((step, member))
    bounds = np.flatnonzero(np.diff(member[rows])) + 1
    if has_steps:
        _refuse_twice(rows, member, step, unique, columns.step, origin)
    channels, values, said = _channels(frame, columns, origin)
    notes += said
    gaps = np.diff(step[rows], prepend=step[rows][0])
    gaps[np.r_[0, bounds]] = np.nan
    learned = None if columns.learned is None else any(one.is_interval for one in columns.learned.channels)
    if has_steps and (learned if learned is not None else not _is_even(gaps)):
        channels = (*channels, Channel(columns.step, is_interval=True))
        values = np.c_[values, _scattered(np.nan_to_num(gaps), rows)]
        notes += (
            f"the steps of {columns.step} are not evenly spaced, so the network also reads the time since the "
            "step before",
        )
    series = tuple(np.split(values[rows], bounds))
    made = Examples(SERIES, series, tuple(map(str, unique)), channels=channels, notes=notes)
    return _with_labels(made, frame, columns, rows, bounds, origin)


def _scattered(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Values in sorted order, back in the order of the table."""
    made = np.empty_like(values)
    made[rows] = values
    return made


def _steps(column: Any, name: str, names: np.ndarray, origin: Origin) -> np.ndarray:
    """The times of the rows as float64 (R,): numbers as they are, dates in seconds."""
    if column.dtype.is_numeric():
        numbers = column.cast(require("narwhals").Float64).to_numpy()
    else:
        text = as_text(column, name)
        numbers = text.cast(require("polars").Float64, strict=False).to_numpy()
        if np.isnan(numbers).any():
            times = read_times(column, TimeColumn(name, origin, lambda: names.astype(str)))
            values = times.values
            return (
                values.astype("datetime64[us]").astype(np.int64) / 1e6 if values.dtype.kind == "M" else values
            )
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise DataError(f"column {name!r} has no step at {origin.where(int(bad.argmax()))}")
    return np.asarray(numbers, dtype=np.float64)


def _refuse_twice(
    rows: np.ndarray, member: np.ndarray, step: np.ndarray, unique: np.ndarray, name: str, origin: Origin
) -> None:
    same = (np.diff(member[rows]) == 0) & (np.diff(step[rows]) == 0)
    if same.any():
        row = int(rows[int(same.argmax()) + 1])
        raise DataError(
            f"series {shown(unique[member[row]])} has two rows of the same {name}, the second at "
            f"{origin.where(row)}; each step has one row, and each series a name of its own"
        )


def _is_even(gaps: np.ndarray) -> bool:
    known = gaps[~np.isnan(gaps)]
    return not len(known) or bool(np.ptp(known) <= EVEN * np.median(known))


def _channels(
    frame: Any, columns: Columns, origin: Origin
) -> tuple[tuple[Channel, ...], np.ndarray, tuple[str, ...]]:
    """The channels, their values (R, width) in the order of the table, and notes on them."""
    reserved = (columns.series, columns.label, columns.step)
    learned: dict[str, Channel] = {}
    names = columns.channels or tuple(name for name in frame.columns if name not in reserved)
    if columns.learned is not None:
        learned = {one.name: one for one in columns.learned.channels if not one.is_interval}
        names = tuple(learned)
    lacking = [name for name in names if name not in frame.columns]
    if lacking:
        raise DataError(f"there is no column {lacking[0]!r}; the table has {shown_names(frame.columns)}")
    if not names:
        raise DataError(
            f"the table has no values: beside {', '.join(map(repr, reserved))} there is no column"
        )
    channels, values, notes = [], [], []
    for name in names:
        if _is_categories(frame[name], name, learned.get(name)):
            channel, zeros_and_ones, said = _categories(frame[name], name, learned.get(name), origin)
            channels.append(channel)
            values.append(zeros_and_ones)
        else:
            numbers, remarks = read_numbers(frame[name], name, origin, columns.decimal)
            said = list(remarks)
            channels.append(Channel(name))
            values.append(numbers[:, None])
        notes += said
    return tuple(channels), np.concatenate(values, axis=1), tuple(notes)


def _is_categories(column: Any, name: str, learned: Channel | None) -> bool:
    """Whether most values of a column are no numbers. A single wrong one among numbers is a mistake, not a category."""
    if learned is not None:
        return learned.categories is not None
    if column.dtype.is_numeric() or column.dtype == require("narwhals").Boolean:
        return False
    text = as_text(column, name)
    digits = text.str.contains(r"\d")
    return bool((~digits.fill_null(True)).sum() > len(text) / 2)


def _categories(
    column: Any, name: str, learned: Channel | None, origin: Origin
) -> tuple[Channel, np.ndarray, list[str]]:
    """A column of names as one of zeros and ones for each name; unknown and missing names are zeros everywhere."""
    texts, notes = as_text(column, name).to_list(), []
    if learned is None:
        known = tuple(sorted({text for text in texts if text}))
        if len(known) > MOST_CATEGORIES:
            raise DataError(
                f"column {name!r} holds {len(known):,} different texts, such as {shown(texts[0])} at "
                f"{origin.where(0)}; a channel has numbers, or at most {MOST_CATEGORIES} categories: leave it out by "
                "naming the channels (--channels)"
            )
        notes.append(f"{name} is read as categories: {shown_names(known)}")
    else:
        assert learned.categories is not None
        known = learned.categories
        new = {text for text in texts if text} - set(known)
        if new:
            notes.append(f"{name} has categories that training has not seen: {shown_names(sorted(new))}")
    index = {text: number for number, text in enumerate(known)}
    made = np.zeros((len(texts), len(known)))
    for row, text in enumerate(texts):
        if text in index:
            made[row, index[text]] = 1.0
    return Channel(name, known), made, notes


def _with_labels(
    made: Examples, frame: Any, columns: Columns, rows: np.ndarray, bounds: np.ndarray, origin: Origin
) -> Examples:
    """With the label of each series, which must be the same in all of its rows."""
    from dataclasses import replace

    if columns.label not in frame.columns:
        sentence = f"there is no column {columns.label!r}; the table has {shown_names(frame.columns)}"
        return replace(made, unlabelled=sentence)
    values = frame[columns.label].to_list()
    labels = []
    for name, part in zip(made.names, np.split(rows, bounds), strict=True):
        found = {values[row] for row in part}
        if len(found) > 1:
            first, second = sorted(map(str, found))[:2]
            raise DataError(
                f"series {shown(name)} has two labels, {shown(first)} and {shown(second)} (the first of its rows is "
                f"{origin.where(int(part[0]))}); a series has one"
            )
        label = found.pop()
        if label is None or label == "":
            return replace(
                made, unlabelled=f"series {shown(name)} has no label at {origin.where(int(part[0]))}"
            )
        labels.append(as_label(label, name))
    return replace(made, labels=tuple(labels))
