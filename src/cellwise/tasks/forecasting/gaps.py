"""Gaps that no one can mean: one mistyped year must not fill an hourly series until 9024."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.frequency import Frequency

__all__ = ["refuse_absurd_gaps"]

# One gap is absurd that is longer than so many steps of a unit (a month of hours, a year and more of days), than the
# rows of its series, and than so many of its usual distances.
LONGEST_GAPS = {
    "s": 31 * 86400, "min": 31 * 1440, "h": 31 * 24, "D": 400, "B": 285, "W": 104, "M": 60, "Q": 20, "Y": 20,
    "step": 1000,
}  # fmt: skip
USUAL_DISTANCES = 30
# If nobody told the frequency, at most so many of the times may be absent: of whole numbers, which may be dates in
# disguise, and of dates.
ABSENT_NUMBERS, ABSENT_DATES = 0.4, 0.95
FEW = 100  # so many absent dates are never too many
# Told or not: so many times for one row, and in all.
TIMES_PER_ROW, MOST_TIMES = 100, 10**6


def refuse_absurd_gaps(
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    grid: Frequency,
    *,
    given: bool,
    where: Callable[[str, int], str],
) -> None:
    """DataError where filling the gaps of a series would make up more than the data holds.

    series: name -> times (R,), sorted, and their steps (R,) on the grid; given: whether the user told the
    frequency; where: how to find a row of a series."""
    rows, filled = 0, 0
    for name, (times, steps) in series.items():
        rows += len(times)
        filled += int(steps[-1]) + 1
        if len(times) > 1:
            _refuse_one_gap(name, times, steps, grid, where)
    absent = 1 - rows / filled
    if filled > MOST_TIMES and filled > TIMES_PER_ROW * rows:
        raise DataError(
            f"{filled - rows:,} of {filled:,} times would be absent if there were one every {grid.words}; give a "
            "longer frequency"
        )
    if given:
        return
    if grid.is_integer and absent > ABSENT_NUMBERS:
        raise DataError(
            f"{filled - rows:,} of {filled:,} times would be absent if the whole numbers were counted in steps of "
            f"{grid.name}; give freq='{grid.name}' (--freq {grid.name}) if they are, or write dates as YYYY-MM-DD"
        )
    if absent > ABSENT_DATES and filled - rows > FEW:
        raise DataError(
            f"most times are one {grid.words} apart, but then {filled - rows:,} of {filled:,} would be absent; give "
            f"freq='{grid.name}' (--freq {grid.name}) if that is meant, or the frequency that is"
        )


def _refuse_one_gap(
    name: str, times: np.ndarray, steps: np.ndarray, grid: Frequency, where: Callable[[str, int], str]
) -> None:
    apart = np.diff(steps)
    longest = int(apart.argmax())
    gap = int(apart[longest])
    longest_sane = LONGEST_GAPS[grid.unit] / grid.multiple
    if gap <= max(longest_sane, len(times), USUAL_DISTANCES * float(np.median(apart))):
        return
    # the smaller side of the gap is the likelier mistake
    row = longest + 1 if longest + 1 > len(times) / 2 else longest
    raise DataError(
        f"series {name!r} has {len(times):,} rows and a gap of {grid.many(gap - 1)} between {_show(times[longest])} "
        f"and {_show(times[longest + 1])}: look at {where(name, row)} ({_show(times[row])}); mend the time, or, if it "
        "is right, leave out what lies beyond the gap or give it a name of its own"
    )


def _show(time: object) -> str:
    return str(time).replace("T", " ").removesuffix(".000000").removesuffix(" 00:00:00")
