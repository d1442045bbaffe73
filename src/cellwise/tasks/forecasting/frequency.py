"""How far apart the times of a series are, and how to step along them.

A `Frequency` counts steps from an origin: `steps` turns times into whole numbers, `times` turns them back.
Everything that fills gaps or reaches into the future goes through those two, so months of 28 to 31 days,
business days and plain integers need no special case anywhere else.

Times are `datetime64[us]` arrays, or int64 arrays for series that are merely numbered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellwise.tasks.forecasting.errors import FrequencyError

__all__ = ["Frequency", "infer_frequency", "parse_frequency", "settle_frequency"]

MICROSECONDS = {"s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "D": 86400 * 10**6, "W": 7 * 86400 * 10**6}
MONTHS = {"M": 1, "Q": 3, "Y": 12}
# unit -> the next larger one, and how many make one
LARGER = {
    "s": ("min", 60), "min": ("h", 60), "h": ("D", 24), "D": ("W", 7), "M": ("Q", 3), "Q": ("Y", 4),
}  # fmt: skip
DAY = MICROSECONDS["D"]
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
UNIT_WORDS = {
    "s": "second",
    "min": "minute",
    "h": "hour",
    "D": "day",
    "B": "business day",
    "W": "week",
    "M": "month",
}
UNIT_WORDS |= {"Q": "quarter", "Y": "year", "step": "step"}
# unit -> the cycles that people live by, with their length in units, the shortest first
CYCLES = {
    "s": {"minute": 60, "hour": 3600}, "min": {"hour": 60, "day": 1440, "week": 10_080},
    "h": {"day": 24, "week": 168, "year": 8766}, "D": {"week": 7, "year": 365}, "B": {"week": 5, "year": 261},
    "W": {"year": 52}, "M": {"year": 12}, "Q": {"year": 4},
}  # fmt: skip

# pandas-like spellings -> (unit, anchor). "M" alone leaves the anchor to the data.
SPELLINGS = {
    "s": ("s", ""), "S": ("s", ""), "sec": ("s", ""),
    "min": ("min", ""), "T": ("min", ""),
    "h": ("h", ""), "H": ("h", ""),
    "D": ("D", ""), "d": ("D", ""), "B": ("B", ""), "W": ("W", ""),
    "MS": ("M", "S"), "ME": ("M", "E"), "M": ("M", ""),
    "QS": ("Q", "S"), "QE": ("Q", "E"), "Q": ("Q", ""),
    "YS": ("Y", "S"), "YE": ("Y", "E"), "Y": ("Y", ""), "AS": ("Y", "S"), "A": ("Y", ""),
}  # fmt: skip
KNOWN_NAMES = (
    "s, min, 15min, 30min, h, D, B, W, W-SUN, MS, ME, QS, QE, YS, YE, or a whole number for integer times"
)


@dataclass(frozen=True)
class Frequency:
    """A regular grid of times.

    name: canonical spelling ("D", "MS", "30min", "W-SUN", "1"); season_length: steps in the natural season
    (7 for days, 12 for months; 1 means none); unit and multiple: what one step is; anchor: "S" or "E" for
    months counted from their start or end, a weekday for weeks, "" where it does not matter.
    """

    name: str
    season_length: int
    unit: str
    multiple: int = 1
    anchor: str = ""

    @property
    def is_integer(self) -> bool:
        """Whether times are plain numbers rather than dates."""
        return self.unit == "step"

    @property
    def words(self) -> str:
        """The frequency as one says it: "day", "30 minutes"."""
        word = UNIT_WORDS[self.unit]
        return word if self.multiple == 1 else f"{self.multiple} {word}s"

    @property
    def cycles(self) -> dict[str, int]:
        """The cycles that a series at this frequency may follow, with their length in steps, the shortest first:
        {"day": 24, "week": 168, "year": 8766} for hours. A year is rounded to whole steps; what else is no whole
        number of steps is left out."""
        cycles = {}
        for word, units in CYCLES.get(self.unit, {}).items():
            steps, rest = divmod(units, self.multiple)
            if steps >= 2 and (rest == 0 or word == "year"):
                cycles[word] = round(units / self.multiple)
        return cycles

    def many(self, count: int) -> str:
        """So many steps as one says it: "28 days", "48 steps of 30 minutes"."""
        if self.multiple > 1:
            return f"{count:,} {'step' if count == 1 else 'steps'} of {self.words}"
        return f"{count:,} {self.words}{'' if count == 1 else 's'}"

    def steps(self, origin: Any, times: np.ndarray) -> np.ndarray:
        """Whole steps from `origin` to each time, int64 (T,). FrequencyError for a time between steps."""
        if self.is_integer:
            counts, rest = np.divmod(times.astype(np.int64) - int(origin), self.multiple)
            fits = rest == 0
        elif self.unit in MONTHS:
            counts, fits = self._month_steps(origin, times)
        elif self.unit == "B":
            counts, fits = self._business_steps(origin, times)
        else:
            difference = (times - origin).astype("timedelta64[us]").astype(np.int64)
            counts, rest = np.divmod(difference, MICROSECONDS[self.unit] * self.multiple)
            fits = (rest == 0) & self._weekday_fits(times)
        if not fits.all():
            self._refuse(origin, times[~fits][0])
        return counts.astype(np.int64)

    def times(self, origin: Any, steps: np.ndarray) -> np.ndarray:
        """The times that lie `steps` (int64, may be negative) steps after `origin`."""
        steps = np.asarray(steps, dtype=np.int64)
        if self.is_integer:
            return int(origin) + steps * self.multiple
        origin = np.datetime64(origin, "us")
        if self.unit in MONTHS:
            return self._month_times(origin, steps)
        if self.unit == "B":
            day, within = _split_day(origin)
            return np.busday_offset(day, steps * self.multiple).astype("datetime64[us]") + within
        return origin + (steps * (MICROSECONDS[self.unit] * self.multiple)).astype("timedelta64[us]")

    def future(self, last: Any, count: int) -> np.ndarray:
        """The `count` times after `last`."""
        return self.times(last, np.arange(1, count + 1))

    def _month_steps(self, origin: Any, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        months = times.astype("datetime64[M]").astype(np.int64) - np.int64(
            np.datetime64(origin, "M").astype(np.int64)
        )
        counts, rest = np.divmod(months, MONTHS[self.unit] * self.multiple)
        on_grid = self.times(origin, counts) == times
        if (
            self.anchor == "S"
        ):  # a 29th to 31st would drift: such a grid hangs on the month's end, not on its start
            on_grid &= _day_of_month(times) <= 28
        return counts, (rest == 0) & on_grid

    def _month_times(self, origin: np.datetime64, steps: np.ndarray) -> np.ndarray:
        day, within = _split_day(origin)
        months = np.datetime64(day, "M") + steps * (MONTHS[self.unit] * self.multiple)
        first = months.astype("datetime64[D]")
        length = ((months + 1).astype("datetime64[D]") - first).astype(np.int64)
        wanted = int(_day_of_month(np.array([day]))[0])
        chosen = length if self.anchor == "E" else np.minimum(length, wanted)
        return (first + (chosen - 1)).astype("datetime64[us]") + within

    def _business_steps(self, origin: Any, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        day, within = _split_day(np.datetime64(origin, "us"))
        days = times.astype("datetime64[D]")
        # busday_count is not symmetric: count forward from the earlier day on both sides
        forward = np.busday_count(day, np.maximum(days, day))
        backward = np.busday_count(np.minimum(days, day), day)
        counts, rest = np.divmod(forward - backward, self.multiple)
        fits = (rest == 0) & np.is_busday(days) & (times - days.astype("datetime64[us]") == within)
        return counts, fits & bool(np.is_busday(day))

    def _weekday_fits(self, times: np.ndarray) -> np.ndarray:
        if self.unit != "W" or not self.anchor:
            return np.ones(times.shape, dtype=bool)
        return _weekday(times) == WEEKDAYS.index(self.anchor)

    def _refuse(self, origin: object, time: object) -> None:
        shown, start = _show(time), _show(origin)
        where = {"S": " start", "E": " end"}.get(self.anchor, "")
        raise FrequencyError(
            f"the frequency {self.name} does not fit the data: {shown} is not on its grid "
            f"(every {self.words}{where} from {start} on); give the frequency that does, one of {KNOWN_NAMES}"
        )


def parse_frequency(name: str | int, season_length: int | None = None) -> Frequency:
    """A frequency by its pandas-like name.

    >>> parse_frequency("30min").season_length
    48
    >>> parse_frequency("QS").words
    'quarter'
    """
    text = str(name).strip()
    match = re.fullmatch(r"(\d*)([A-Za-z]*)(?:-([A-Za-z]{3}))?", text)
    number, letters, suffix = match.groups() if match and text else ("", "?", None)
    multiple = int(number or 1)
    if multiple < 1 or (letters and letters not in SPELLINGS):
        raise FrequencyError(f"{text!r} is not a frequency; write one of {KNOWN_NAMES}")
    if not letters:
        return _make("step", multiple, "", season_length)
    unit, anchor = SPELLINGS[letters]
    if suffix and unit == "W":
        anchor = suffix.upper()
        if anchor not in WEEKDAYS:
            raise FrequencyError(
                f"{text!r} names no day of the week; write one of {', '.join(WEEKDAYS)} after W-"
            )
    return _make(unit, multiple, anchor, season_length)


def infer_frequency(times: Sequence[np.ndarray], season_length: int | None = None) -> Frequency:
    """The frequency that the times of all series (each sorted, without duplicates) show most often."""
    longest = max(times, key=len)
    if len(longest) < 2:
        raise FrequencyError(
            "no series has two times, so the frequency cannot be seen; give it with freq (--freq), for example D"
        )
    if longest.dtype.kind != "M":
        return _make("step", _most_common(np.concatenate([np.diff(t) for t in times])), "", season_length)
    gaps = np.concatenate([np.diff(t.astype("datetime64[us]")).astype(np.int64) for t in times])
    common = _most_common(gaps)
    together = np.concatenate(list(times)).astype("datetime64[us]")
    if common >= 28 * DAY and (_at_month_end(together).all() or len(np.unique(_day_of_month(together))) == 1):
        months = _most_common(
            np.concatenate([np.diff(t.astype("datetime64[M]")).astype(np.int64) for t in times])
        )
        unit = "Y" if months % 12 == 0 else "Q" if months % 3 == 0 else "M"
        candidate = _make(unit, max(1, months // MONTHS[unit]), "", season_length)
        return settle_frequency(candidate, times)
    if common == DAY and len(gaps) >= 9 and not (_weekday(together) >= 5).any():
        return _make("B", 1, "", season_length)
    for unit in ("W", "D", "h", "min", "s"):
        if common % MICROSECONDS[unit] == 0:
            return settle_frequency(_make(unit, common // MICROSECONDS[unit], "", season_length), times)
    raise FrequencyError("the times lie less than a second apart; number them with integers instead")


def settle_frequency(frequency: Frequency, times: Sequence[np.ndarray]) -> Frequency:
    """Fill in the anchor that the name left open (month start or end, weekday) from the times themselves."""
    if frequency.is_integer or frequency.anchor:
        return frequency
    together = np.concatenate(list(times)).astype("datetime64[us]")
    if frequency.unit in MONTHS:
        anchor = "E" if _at_month_end(together).all() else "S"
    elif frequency.unit == "W" and len(set(_weekday(together).tolist())) == 1:
        anchor = WEEKDAYS[int(_weekday(together)[0])]
    else:
        return frequency
    return _make(frequency.unit, frequency.multiple, anchor, frequency.season_length)


def _make(unit: str, multiple: int, anchor: str, season_length: int | None) -> Frequency:
    while unit in LARGER and multiple % LARGER[unit][1] == 0:  # 24h is D, 7D is W, 12MS is YS
        unit, multiple = LARGER[unit][0], multiple // LARGER[unit][1]
    prefix = "" if multiple == 1 and unit != "step" else str(multiple)
    spelled = "" if unit == "step" else f"{unit}-{anchor}" if unit == "W" and anchor else f"{unit}{anchor}"
    season = _natural_season(unit, multiple) if season_length is None else season_length
    return Frequency(f"{prefix}{spelled}", season, unit, multiple, anchor)


def _natural_season(unit: str, multiple: int) -> int:
    """Steps in the season one expects: a day of hours, a week of days, a year of anything longer."""
    shortest = "day" if unit == "min" and multiple >= 5 else next(iter(CYCLES.get(unit, {"": 1})))
    whole = CYCLES.get(unit, {"": 1})[shortest]
    return whole // multiple if whole % multiple == 0 else 1


def _most_common(values: np.ndarray) -> int:
    found, counts = np.unique(values, return_counts=True)
    return int(found[counts.argmax()])


def _split_day(time: Any) -> tuple[Any, Any]:
    """Midnight of the day, and how long after it."""
    day = np.datetime64(time, "D")
    return day, np.datetime64(time, "us") - day


def _day_of_month(times: np.ndarray) -> np.ndarray:
    days = times.astype("datetime64[D]")
    return (days - days.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64) + 1


def _at_month_end(times: np.ndarray) -> np.ndarray:
    days = times.astype("datetime64[D]")
    return days.astype("datetime64[M]") != (days + 1).astype("datetime64[M]")


def _weekday(times: np.ndarray) -> np.ndarray:
    """Monday is 0."""
    return (times.astype("datetime64[D]").astype(np.int64) + 3) % 7


def _show(time: object) -> str:
    if not isinstance(time, np.datetime64):
        return str(time)
    return str(time).replace("T", " ").removesuffix(".000000").removesuffix(" 00:00:00")
