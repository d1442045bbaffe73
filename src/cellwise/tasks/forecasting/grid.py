"""From rows in any order to series on a regular grid, saying what had to be filled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.errors import FrequencyError
from cellwise.tasks.forecasting.frequency import Frequency, infer_frequency, parse_frequency, settle_frequency
from cellwise.tasks.forecasting.gaps import refuse_absurd_gaps
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.season import find_season

__all__ = ["Rows", "build_panel"]


@dataclass(frozen=True, eq=False)
class Rows:
    """R rows as they came: names (R,) str, times (R,) datetime64[us] or int64, y (R,), known (R, K), past
    (R, P); rows (R,): their numbers in the table."""

    names: np.ndarray
    times: np.ndarray
    y: np.ndarray
    known: np.ndarray
    past: np.ndarray
    rows: np.ndarray

    def take(self, chosen: np.ndarray) -> Rows:
        """These rows only."""
        return Rows(
            self.names[chosen],
            self.times[chosen],
            self.y[chosen],
            self.known[chosen],
            self.past[chosen],
            self.rows[chosen],
        )


@dataclass
class Filled:
    """Counts of what was filled, for the notes."""

    absent: int = 0
    gappy: int = 0
    longest: int = 0
    longest_after: str = ""
    empty: int = 0
    future: int = 0
    leading: int = 0
    known: int = 0


def build_panel(
    rows: Rows,
    known_names: tuple[str, ...],
    past_names: tuple[str, ...],
    frequency: str | Frequency | None,
    season_length: int | None,
    *,
    has_id: bool,
    where: Callable[[int], str] = "row {}".format,
) -> tuple[Panel, tuple[str, ...]]:
    """Sort, check, find the frequency, fill the gaps, find the season. Series keep the order in which they first come.
    where: how to find a row of the table."""
    groups = _split(rows)
    for name, part in groups.items():
        _refuse_duplicates(name, part, has_id)
    grid = _find_frequency(groups, frequency, season_length)
    refuse_absurd_gaps(
        {name: (part.times, grid.steps(part.times[0], part.times)) for name, part in groups.items()},
        grid,
        given=frequency is not None,
        where=lambda name, row: where(int(groups[name].rows[row])),
    )
    filled, dropped, made = Filled(), [], []
    for name, part in groups.items():
        if np.isnan(part.y).all():
            dropped.append(name)
            continue
        made.append((name, *_fill(name, part, grid, filled)))
    if not made:
        raise DataError("no series has a single value to learn from")
    ids, times, y, known, past = zip(*made, strict=True)
    panel = Panel(ids, grid, times, y, known, past, known_names, past_names)
    notes = _notes(panel, filled, dropped, known_names)
    if season_length is not None or isinstance(frequency, Frequency):
        return panel, notes
    season = find_season(panel)
    panel = replace(panel, frequency=replace(grid, season_length=season.length))
    return panel, (*notes, season.note) if season.note else notes


def _split(rows: Rows) -> dict[str, Rows]:
    found, first, code = np.unique(rows.names.astype(str), return_index=True, return_inverse=True)
    order = np.lexsort((rows.times, code))
    ends = np.cumsum(np.bincount(code))
    parts = np.split(order, ends[:-1])
    return {str(found[i]): rows.take(parts[i]) for i in np.argsort(first)}


def _refuse_duplicates(name: str, part: Rows, has_id: bool) -> None:
    same = part.times[1:] == part.times[:-1]
    if same.any():
        time = _show(part.times[1:][same][0])
        more = f" ({int(same.sum())} such rows in all)" if same.sum() > 1 else ""
        hint = (
            "keep one row per time"
            if has_id
            else "keep one, or name the column that tells series apart, or several with commas, with id_column (--id)"
        )
        raise DataError(f"series {name!r} has two rows for {time}{more}; {hint}")


def _find_frequency(
    groups: dict[str, Rows], given: str | Frequency | None, season_length: int | None
) -> Frequency:
    times = [part.times for part in groups.values()]
    if given is None:
        found = infer_frequency(times, season_length)
        try:
            for part in groups.values():
                found.steps(part.times[0], part.times)
        except FrequencyError as error:
            gap = found.words if found.multiple > 1 else f"one {found.words}"
            raise FrequencyError(
                f"the times follow no regular grid: most are {gap} apart, but not all ({_inner(error)}); aggregate "
                "them first, or give the frequency with freq (--freq)"
            ) from error
        return found
    parsed = given if isinstance(given, Frequency) else parse_frequency(given, season_length)
    if parsed.is_integer != (times[0].dtype.kind != "M"):
        dated = times[0].dtype.kind == "M"
        kind, wanted = ("dates", "a name such as D, h or MS") if dated else ("whole numbers", "one such as 1")
        raise FrequencyError(
            f"the frequency {parsed.name} does not fit the data: the times are {kind}, so give {wanted}"
        )
    settled = settle_frequency(parsed, times)
    _refuse_finer(settled, times)
    return settled


def _refuse_finer(frequency: Frequency, times: list[np.ndarray]) -> None:
    """Rows that are missing here and there are welcome; but where all of them follow a coarser grid without a
    gap, that is the frequency."""
    apart = np.concatenate([np.diff(frequency.steps(t[0], t)) for t in times])
    if len(apart) < 2 or apart.min() <= 1:
        return
    coarser = infer_frequency(times)
    try:
        gapless = all((np.diff(coarser.steps(t[0], t)) == 1).all() for t in times)
    except FrequencyError:
        return
    if gapless:
        raise FrequencyError(
            f"the frequency {frequency.name} does not fit the data: no two times are closer than "
            f"{frequency.many(int(apart.min()))}; they look like {coarser.name}"
        )


def _fill(
    name: str, part: Rows, grid: Frequency, filled: Filled
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """times (T,), y (T,), known (T + F, K), past (T, P) from the first to the last observed y, and known
    beyond it."""
    observed = np.flatnonzero(~np.isnan(part.y))
    filled.leading += int(observed[0])
    part = part.take(np.arange(observed[0], len(part.y)))
    steps = grid.steps(part.times[0], part.times)
    length, whole = int(steps[observed[-1] - observed[0]]) + 1, int(steps[-1]) + 1
    inside = steps < length
    _count_gaps(name, part, steps, filled)
    y = np.full(length, np.nan)
    y[steps[inside]] = part.y[inside]
    filled.empty += int(np.isnan(part.y[inside]).sum())
    filled.future += whole - length
    past = np.full((length, part.past.shape[1]), np.nan)
    past[steps[inside]] = part.past[inside]
    known = np.full((whole, part.known.shape[1]), np.nan)
    known[steps] = part.known
    if part.known.shape[1] == 0:
        known = known[:length]
    filled.known += _carry_forward(known)
    times = grid.times(part.times[0], np.arange(length))
    return times, y, known, past


def _count_gaps(name: str, part: Rows, steps: np.ndarray, filled: Filled) -> None:
    gaps = np.diff(steps) - 1
    if gaps.sum() == 0:
        return
    filled.absent += int(gaps.sum())
    filled.gappy += 1
    if gaps.max() > filled.longest:
        filled.longest = int(gaps.max())
        filled.longest_after = f"{_show(part.times[int(gaps.argmax())])} in {name!r}"


def _carry_forward(values: np.ndarray) -> int:
    """Fill NaN in place with the value before it (0 at the start); returns how many were filled."""
    missing = np.isnan(values)
    if not missing.any():
        return 0
    position = np.where(missing, -1, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(position, axis=0)
    values[:] = np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=0), 0.0)
    return int(missing.sum())


def _notes(panel: Panel, filled: Filled, dropped: list[str], known_names: tuple[str, ...]) -> tuple[str, ...]:
    total, many = int(panel.lengths.sum()), panel.frequency.many
    notes = []
    if filled.absent:
        notes.append(
            f"{filled.absent:,} of {total:,} times were absent from the data and count as missing "
            f"(in {filled.gappy:,} of {len(panel):,} series; the longest gap, {many(filled.longest)}, "
            f"follows {filled.longest_after})"
        )
    if filled.empty:
        notes.append(f"{filled.empty:,} of {total:,} times have no value and count as missing")
    if filled.leading:
        notes.append(
            f"{_rows(filled.leading)} before the first value of a series {_were(filled.leading)} left out"
        )
    if filled.future:
        they, supply = ("it", "supplies") if filled.future == 1 else ("they", "supply")
        use = f"{supply} {', '.join(known_names)}" if known_names else f"{_were(filled.future)} left out"
        notes.append(
            f"{_rows(filled.future)} after the last value of a series {'is' if filled.future == 1 else 'are'} taken "
            f"as the future; {they} {use}"
        )
    if filled.known:
        values = "missing value" if filled.known == 1 else "missing values"
        notes.append(
            f"{filled.known:,} {values} of {', '.join(known_names)} {_were(filled.known)} carried forward"
        )
    if dropped:
        some = ", ".join(map(repr, dropped[:3])) + (", ..." if len(dropped) > 3 else "")
        notes.append(f"{len(dropped):,} series without any value {_were(len(dropped))} left out ({some})")
    return tuple(notes)


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _inner(error: FrequencyError) -> str:
    """The middle of a FrequencyError's sentence: what does not fit."""
    return str(error).partition(": ")[2].partition(" (every")[0]


def _show(time: object) -> str:
    return str(time).replace("T", " ").removesuffix(".000000").removesuffix(" 00:00:00")
