"""What a date says by itself: its place in the day, the week, the month, the year, as smooth periodic
features.

Each place is a phase in [0, 1); its sine and cosine, and those of a few harmonics, are the features. Seven
weekdays are fully told apart by three harmonics. A period that the data covers less than twice is left out:
its features would only number the observations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellwise.tasks.forecasting.frequency import Frequency
from cellwise.tasks.forecasting.panel import Panel

__all__ = ["calendar_features", "calendar_names", "check_calendar", "with_calendar"]

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


def check_calendar(names: object) -> None:
    """Raise ValueError unless these are names of features, each once."""
    known = {
        f"{name} {wave} {k}"
        for name, cycle in CYCLES.items()
        for k in range(1, cycle.harmonics + 1)
        for wave in ("sin", "cos")
    }
    if not isinstance(names, list) or not set(names) <= known or len(set(names)) != len(names):
        raise ValueError("the features of its calendar are unknown")


def with_calendar(panel: Panel, names: Sequence[str], horizon: int, last: int | None = None) -> Panel:
    """The panel with calendar features put before its own known covariates.

    Without covariates of the user's, known reaches `horizon` steps past y; with them it reaches as far as
    they do. Given `last`, only the last so many steps of y and what follows get their features; before them
    stands NaN, since nothing looks there."""
    known = []
    for times, own in zip(panel.times, panel.known, strict=True):
        reach = len(own) - len(times) if panel.known_names else max(horizon, len(own) - len(times))
        whole = np.concatenate([times, panel.frequency.future(times[-1], reach)])
        begin = 0 if last is None else max(0, len(times) - last)
        features = np.full((len(whole), len(names)), np.nan)
        features[begin:] = calendar_features(names, whole[begin:])
        known.append(np.concatenate([features, own], axis=1) if panel.known_names else features)
    return replace(panel, known=tuple(known), known_names=(*names, *panel.known_names))
