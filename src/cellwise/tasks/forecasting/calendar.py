"""What a date says by itself: its place in the day, the week, the month, the year, as smooth periodic
features; and whether it is a holiday.

Each place is a phase in [0, 1); its sine and cosine, and those of a few harmonics, are the features. Seven
weekdays are fully told apart by three harmonics. A period that the data covers less than twice is left out:
its features would only number the observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.frequency import Frequency
from cellwise.tasks.forecasting.holidays import (
    Holidays,
    check_names,
    find_holidays,
    holiday_features,
    holiday_names,
)
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["Calendar", "calendar_features", "calendar_names", "make_calendar", "with_calendar"]

DAY_SECONDS = 86400.0


def _time_of_day(times: np.ndarray) -> np.ndarray:
    return (times - times.astype("datetime64[D]")).astype("timedelta64[s]").astype(np.float64) / DAY_SECONDS


def _day_of_week(times: np.ndarray) -> np.ndarray:
    return ((times.astype("datetime64[D]").astype(np.int64) + 3) % 7) / 7.0


def _within(times: np.ndarray, unit: str) -> np.ndarray:
    """Days passed of the month or year that a day lies in, as a share of its length."""
    days = times.astype("datetime64[D]")
    whole = days.astype(f"datetime64[{unit}]")
    start, end = whole.astype("datetime64[D]"), (whole + 1).astype("datetime64[D]")
    return (days - start).astype(np.float64) / (end - start).astype(np.float64)


def _day_of_month(times: np.ndarray) -> np.ndarray:
    return _within(times, "M")


def _day_of_year(times: np.ndarray) -> np.ndarray:
    return _within(times, "Y")


def _month_of_year(times: np.ndarray) -> np.ndarray:
    return (times.astype("datetime64[M]").astype(np.int64) % 12) / 12.0


@dataclass(frozen=True)
class Cycle:
    """A place in a period: how to find it, in which units of time it says something, its harmonics, its
    days."""

    phase: Callable[[np.ndarray], np.ndarray]
    units: tuple[str, ...]
    harmonics: int
    days: float


CYCLES = {
    "time of day": Cycle(_time_of_day, ("s", "min", "h"), 3, 1.0),
    "day of week": Cycle(_day_of_week, ("s", "min", "h", "D", "B"), 3, 7.0),
    "day of month": Cycle(_day_of_month, ("D", "B"), 1, 30.5),
    "day of year": Cycle(_day_of_year, ("h", "D", "B", "W"), 3, 365.25),
    "month of year": Cycle(_month_of_year, ("M", "Q"), 3, 365.25),
}


def calendar_names(frequency: Frequency, times: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Names of the features that suit a frequency and these times: "day of week sin 1", ..."""
    if frequency.is_integer:
        return ()
    span = max((t[-1] - t[0]).astype("timedelta64[s]").astype(np.float64) / DAY_SECONDS for t in times)
    return tuple(
        f"{name} {wave} {k}"
        for name, cycle in CYCLES.items()
        if frequency.unit in cycle.units and span >= 2 * cycle.days
        for k in range(1, cycle.harmonics + 1)
        for wave in ("sin", "cos")
    )


def calendar_features(names: Sequence[str], times: np.ndarray) -> np.ndarray:
    """The named features at `times`, float64 (T, len(names)).

    >>> calendar_features(["day of week cos 1"], np.array(["2024-01-01"], "datetime64[us]"))  # a Monday
    array([[1.]])
    """
    parts = [name.rsplit(" ", 2) for name in names]
    phases = {cycle: 2 * np.pi * CYCLES[cycle].phase(times) for cycle in {part[0] for part in parts}}
    made = np.zeros((len(times), len(names)))
    for column, (cycle, wave, harmonic) in enumerate(parts):
        made[:, column] = (np.sin if wave == "sin" else np.cos)(int(harmonic) * phases[cycle])
    return made


class Calendar(tuple[str, ...]):
    """The names of calendar features, those of holidays last, and the holidays that they are about."""

    holidays: Holidays | None

    def __new__(cls, names: Sequence[str] = (), holidays: Holidays | None = None) -> Self:
        """Raises ValueError unless these are names of features, each once."""
        made = super().__new__(cls, names)
        made.holidays = holidays
        known = {
            f"{name} {wave} {k}"
            for name, cycle in CYCLES.items()
            for k in range(1, cycle.harmonics + 1)
            for wave in ("sin", "cos")
        }
        first = names[: len(names) - len(made.about_holidays)]
        if not set(first) <= known or len(set(first)) != len(first):
            raise ValueError("the features of its calendar are unknown")
        if holidays is not None:
            check_names(holidays, made.about_holidays)
        return made

    @property
    def about_holidays(self) -> tuple[str, ...]:
        """The names of the features of holidays."""
        if self.holidays is None:
            return ()
        return tuple(name for name in self if name.rpartition(" ")[2] in self.holidays.places)

    def to_config(self) -> dict[str, Any]:
        """Entries of a run's config.json."""
        config: dict[str, Any] = {"calendar": list(self)}
        return config if self.holidays is None else config | {"holidays": self.holidays.to_dict()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The inverse of `to_config`. Raises ValueError, KeyError or TypeError, as nothing in a file is trusted."""
        names, holidays = config["calendar"], config.get("holidays")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("the features of its calendar are unknown")
        return cls(names, None if holidays is None else Holidays.from_dict(holidays))


def make_calendar(frequency: Frequency, times: Sequence[np.ndarray], places: Sequence[str] = ()) -> Calendar:
    """The calendar that suits a frequency and these times, with the holidays of places such as "US" and "US-CA".

    Raises OptionError for an unknown place, DataError for holidays at a frequency that has none."""
    names = calendar_names(frequency, times)
    if not places:
        return Calendar(names)
    if frequency.is_integer:
        raise DataError(
            "holidays need dates, but the times are whole numbers; leave holidays (--holidays) out"
        )
    holidays = find_holidays(tuple(places), times)
    return Calendar((*names, *holiday_names(holidays, frequency, times)), holidays)


def with_calendar(panel: Panel, names: Sequence[str], horizon: int, last: int | None = None) -> Panel:
    """The panel with calendar features put before its own known covariates.

    Without covariates of the user's, known reaches `horizon` steps past y; with them it reaches as far as
    they do. Given `last`, only the last so many steps of y and what follows get their features; before them
    stands NaN, since nothing looks there. names: a `Calendar` if holidays are among them."""
    calendar = names if isinstance(names, Calendar) else Calendar(names)
    known = []
    for times, own in zip(panel.times, panel.known, strict=True):
        reach = len(own) - len(times) if panel.known_names else max(horizon, len(own) - len(times))
        whole = np.concatenate([times, panel.frequency.future(times[-1], reach)])
        begin = 0 if last is None else max(0, len(times) - last)
        features = np.full((len(whole), len(names)), np.nan)
        features[begin:] = _features(calendar, whole[begin:], panel.frequency)
        known.append(np.concatenate([features, own], axis=1) if panel.known_names else features)
    return replace(panel, known=tuple(known), known_names=(*names, *panel.known_names))


def _features(calendar: Calendar, times: np.ndarray, frequency: Frequency) -> np.ndarray:
    """All features of a calendar at `times`, float64 (T, len(calendar))."""
    about = calendar.about_holidays
    cycles = calendar_features(calendar[: len(calendar) - len(about)], times)
    if calendar.holidays is None:
        return cycles
    return np.concatenate([cycles, holiday_features(calendar.holidays, about, times, frequency)], axis=1)
