"""A table continued with newer rows: what is appended, what is revised, what is new, and what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.backtest import cutoff_indices
from cellwise.tasks.forecasting.frames import Table
from cellwise.tasks.forecasting.frequency import Frequency
from cellwise.tasks.forecasting.gaps import refuse_absurd_gaps
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Extension", "extend"]

SAME = 1e-9  # relative: values that differ by less were written with fewer digits


@dataclass(frozen=True, eq=False)
class Extension:
    """A table with newer rows.

    before (N,): how many observations of each series of the table were there already, 0 for a new series; appended,
    filled, revised: how many values are new, were missing, or were others before; notes: sentences on it."""

    table: Table
    before: np.ndarray
    appended: int
    filled: int
    revised: int
    notes: tuple[str, ...]

    @property
    def new_series(self) -> int:
        """How many series were not there before."""
        return int((self.before == 0).sum())

    def cutoffs(self, horizon: int) -> np.ndarray:
        """Cutoffs (N, C) of windows of what is new, one horizon apart: in a series that was there, the first is its
        former end; in a new one, there is one window at its end. -1 where a series has no more."""
        lengths = self.table.panel.lengths
        grown = np.where(self.before > 0, lengths - self.before, 0)
        steps = np.arange(max(1, math.ceil(int(grown.max()) / horizon)))
        made = self.before[:, None] + horizon * steps
        made = np.where((made < lengths[:, None]) & (self.before > 0)[:, None], made, -1)
        ends = cutoff_indices(lengths, 1, 1, horizon, 2)[:, 0]
        made[:, 0] = np.where(self.before > 0, made[:, 0], ends)
        for i, c in np.argwhere(made >= 0):
            if np.isnan(self.table.panel.y[i][made[i, c] : made[i, c] + horizon]).all():
                made[i, c] = -1  # all of it lies in a gap
        return made


@dataclass
class _Counts:
    appended: int = 0
    filled: int = 0
    revised: int = 0
    older: int = 0
    absent: int = 0
    gappy: int = 0
    unchanged: int = 0
    carried: int = 0


def extend(old: Table, new: Table) -> Extension:
    """The series of `old`, continued by those of `new`, which may overlap them; series of other names are added.

    Where both have a value, that of `new` counts. What lies between them counts as missing, what lies before the start
    of a series is left out. Raises DataError if nothing is new; FrequencyError for times between the steps of a
    series."""
    one, other = old.panel, new.panel
    places = {name: i for i, name in enumerate(other.ids)}
    counts, parts = _Counts(), []
    for i in range(len(one)):
        j = places.pop(one.ids[i], None)
        if j is None:
            counts.unchanged += 1
            parts.append((one.times[i], one.y[i], one.known[i], one.past[i]))
        else:
            parts.append(_joined(one, i, other, j, counts))
    for j in places.values():
        parts.append((other.times[j], other.y[j], other.known[j], other.past[j]))
        counts.appended += int((~np.isnan(other.y[j])).sum())
    if not counts.appended and not counts.filled and not counts.revised:
        raise DataError(
            "there is nothing new: every value is one that the run has, or lies before the start of its series; give "
            "rows after the last ones"
        )
    times, y, known, past = (tuple(column) for column in zip(*parts, strict=True))
    panel = replace(
        one,
        ids=(*one.ids, *(other.ids[j] for j in places.values())),
        times=times,
        y=y,
        known=known,
        past=past,
    )
    before = np.concatenate([one.lengths, np.zeros(len(places), np.int64)])
    notes = (*new.notes, *_notes(counts, len(places), len(one), one.frequency))
    table = Table(panel, old.notes, old.schema)
    return Extension(table, before, counts.appended, counts.filled, counts.revised, notes)


def _joined(
    one: Panel, i: int, other: Panel, j: int, counts: _Counts
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """times, y, known and past of series i of the old panel, with what the new one says of it."""
    length, grid = len(one.y[i]), one.frequency
    rows = grid.steps(one.times[i][0], other.times[j])
    gap = int(rows[0]) - length
    if gap > 0:
        counts.absent, counts.gappy = counts.absent + gap, counts.gappy + 1
        times = np.concatenate([one.times[i], other.times[j]])
        refuse_absurd_gaps(
            {one.ids[i]: (times, np.concatenate([np.arange(length), rows]))},
            grid,
            given=True,
            where=_where(length),
        )
    values = other.y[j]
    counts.older += int((~np.isnan(values[rows < 0])).sum())
    whole = max(length, int(rows[-1]) + 1)
    y = _overlaid(one.y[i][:, None], values[:, None], int(rows[0]), whole)[:, 0]
    same = np.isclose(y[:length], one.y[i], rtol=SAME, atol=0.0, equal_nan=True)
    missing = np.isnan(one.y[i])
    counts.filled += int((~same & missing).sum())
    counts.revised += int((~same & ~missing).sum())
    counts.appended += int((~np.isnan(y[length:])).sum())
    counts.unchanged += not (~np.isnan(y[length:])).any()
    past = _overlaid(one.past[i], other.past[j], int(rows[0]), whole)
    reach = max(len(one.known[i]), int(rows[0]) + len(other.known[j])) if one.known_names else whole
    known = _overlaid(one.known[i], other.known[j], int(rows[0]), reach)
    counts.carried += _carry(known)
    return grid.times(one.times[i][0], np.arange(whole)), y, known, past


def _where(length: int) -> Callable[[str, int], str]:
    return lambda name, row: (
        "the end of what the run has" if row < length else "the first row of the new data"
    )


def _overlaid(old: np.ndarray, new: np.ndarray, begin: int, length: int) -> np.ndarray:
    """Rows of `old`, with those of `new`, where known, from row `begin` on (which may be negative), NaN elsewhere."""
    made = np.full((length, old.shape[1]), np.nan)
    made[: len(old)] = old[:length]
    part = new[max(0, -begin) :][: max(0, length - max(0, begin))]
    rows = slice(max(0, begin), max(0, begin) + len(part))
    made[rows] = np.where(np.isnan(part), made[rows], part)
    return made


def _carry(values: np.ndarray) -> int:
    """Fill NaN in place with the value before it; returns how many were filled."""
    missing = np.isnan(values)
    if missing.any():
        rows = np.maximum.accumulate(np.where(missing, 0, np.arange(len(values))[:, None]), axis=0)
        values[:] = np.take_along_axis(values, rows, axis=0)
    return int(missing.sum())


def _notes(counts: _Counts, added: int, former: int, frequency: Frequency) -> tuple[str, ...]:
    notes = []
    if counts.absent:
        series = f" in {counts.gappy:,} of {former:,} series" if former > 1 else ""
        notes.append(
            f"{frequency.many(counts.absent)} between what the run has and the new data count as missing{series}"
        )
    if counts.filled:
        notes.append(
            f"{counts.filled:,} {_values(counts.filled)} that had been missing {_were(counts.filled)} filled in"
        )
    if counts.revised:
        notes.append(
            f"{counts.revised:,} {_values(counts.revised)} that the run has {_were(counts.revised)} revised; what the "
            "new data says counts"
        )
    if counts.older:
        notes.append(
            f"{counts.older:,} {_values(counts.older)} before the start of a series {_were(counts.older)} left out"
        )
    if counts.carried:
        notes.append(
            f"{counts.carried:,} missing {_values(counts.carried)} of covariates {_were(counts.carried)} carried "
            "forward"
        )
    if added:
        notes.append(f"{added:,} series {_were(added)} added")
    if counts.unchanged and former > 1:
        has = "has" if counts.unchanged == 1 else "have"
        notes.append(f"{counts.unchanged:,} of {former:,} series {has} no new value")
    return tuple(notes)


def _values(count: int) -> str:
    return "value" if count == 1 else "values"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
