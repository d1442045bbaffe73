"""What people give: texts, or series of numbers, with their labels. Everything is read into this form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cellwise.tasks.errors import DataError

__all__ = ["SERIES", "TEXT", "Channel", "Examples", "as_label", "width_of"]

TEXT, SERIES = "text", "series"
Label = str | int | float | bool


@dataclass(frozen=True)
class Channel:
    """A column of a series: numbers, or, with `categories`, names that become one column of zeros and ones each."""

    name: str
    categories: tuple[str, ...] | None = None
    is_interval: bool = False
    """Whether it is the time since the step before, in data whose steps are not evenly spaced."""

    @property
    def width(self) -> int:
        """How many numbers a step has of it."""
        return 1 if self.categories is None else len(self.categories)


def width_of(channels: Iterable[Channel]) -> int:
    """How many numbers a step has in all."""
    return sum(channel.width for channel in channels)


@dataclass(frozen=True, eq=False)
class Examples:
    """Sequences, all of one kind.

    kind: "text", where inputs are str, or "series", where they are float64 arrays (T, D) with T >= 1.
    names: how each is called: its name, or the number of its row. labels: one each, or None where none are known.
    channels: of series. notes: what was noticed in reading, in sentences. unlabelled: why there are no labels.
    test: others of the same data, kept for a test, where the data bring some. source: the file they came from."""

    kind: str
    inputs: tuple[Any, ...]
    names: tuple[str, ...]
    labels: tuple[Label, ...] | None = None
    channels: tuple[Channel, ...] = ()
    notes: tuple[str, ...] = ()
    unlabelled: str = "no labels were given"
    test: Examples | None = None
    source: Path | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def select(self, rows: Sequence[int] | np.ndarray) -> Examples:
        """Only these; the test goes another way."""
        rows = [int(row) for row in rows]
        labels = None if self.labels is None else tuple(self.labels[row] for row in rows)
        inputs, names = (tuple(each[row] for row in rows) for each in (self.inputs, self.names))
        return replace(self, inputs=inputs, names=names, labels=labels, test=None)

    def labelled(self, target: Any) -> Examples:
        """With the labels of `target`, an iterable or a column; unchanged for None. DataError if the numbers differ."""
        if target is None:
            return self
        values = target.tolist() if hasattr(target, "tolist") else list(_iterated(target))
        if len(values) != len(self):
            raise DataError(
                f"there are {len(self):,} sequences and {len(values):,} labels; each sequence needs one"
            )
        return replace(
            self, labels=tuple(as_label(value, name) for value, name in zip(values, self.names, strict=True))
        )

    def about(self) -> str:
        """In a line: how many there are, and of which length."""
        if not len(self):
            return "no sequences"
        if self.kind == TEXT:
            lengths, unit = [len(text) for text in self.inputs], "characters"
        else:
            lengths, unit = [len(values) for values in self.inputs], "steps"
        low, high = min(lengths), max(lengths)
        length = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        channels = ""
        if self.kind == SERIES:
            channels = f" of {len(self.channels):,} channel{'s' * (len(self.channels) != 1)}"
        what = "text" if self.kind == TEXT else "series"
        plural = "s" * (self.kind == TEXT and len(self) != 1)
        return f"{len(self):,} {what}{plural}{channels}, {length} {unit}"


def as_label(value: Any, where: str) -> Label:
    """A label as Python has it; `where`: whose it is. DataError for None, NaN and what is no single value."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and value != value) or value == "":
        raise DataError(f"sequence {where!r} has no label; give it one, or leave it out")
    if isinstance(value, str | bool | int | float):
        return value
    raise DataError(
        f"a label is a text or a number, but that of sequence {where!r} is {type(value).__name__}"
    )


def _iterated(values: Any) -> Iterable[Any]:
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise DataError(f"labels are a list, one for each sequence, not {type(values).__name__}")
    return values
