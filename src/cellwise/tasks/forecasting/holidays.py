"""Public holidays by country, as covariates that are known in advance for any horizon.

Their dates come from the package `holidays`, whose versions may disagree. So a run keeps the dates that it learned
with, and those of some years to come: the package is asked only beyond them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from cellwise.tasks.data.optional import require
from cellwise.tasks.data.origin import shown
from cellwise.tasks.errors import DataError, OptionError
from cellwise.tasks.forecasting.frequency import Frequency

__all__ = ["Holidays", "check_names", "find_holidays", "holiday_features", "holiday_names"]

PACKAGES = ("holidays",)  # the extra `holidays`
YEARS_AHEAD = 10  # after the data, whose dates a run keeps
OFTEN = 3  # years of the data with a holiday of one name, for it to have columns of its own
FIRST, LAST = 1600, 2200  # years that a table may hold
PLACE = re.compile(r"[A-Z]{2}(?:-[A-Z0-9]{1,5})?")
DAYS, WITHIN_DAY = ("D", "B"), ("s", "min", "h")

Named = tuple[tuple[str, str], ...]  # ISO days, sorted, each with a name; a day may stand there twice


@dataclass(frozen=True)
class Holidays:
    """The holidays of some places in the years from `first` to `last`, both included. JSON-able.

    places: "US", "US-CA", ...; days: of each place; weekends: of each, as days of the week (Monday is 0)."""

    places: tuple[str, ...]
    first: int
    last: int
    days: tuple[Named, ...]
    weekends: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Raises ValueError, as nothing in a file is trusted."""
        if not len(self.places) == len(self.days) == len(self.weekends) == len(set(self.places)):
            raise ValueError("its holidays are not those of its places")
        if not all(isinstance(each, str) and PLACE.fullmatch(each) for each in self.places):
            raise ValueError("a place of its holidays is none")
        years = (self.first, self.last)
        if any(type(each) is not int or not FIRST - 1 <= each <= LAST + YEARS_AHEAD for each in years):
            raise ValueError("the years of its holidays are none")
        for named, weekend in zip(self.days, self.weekends, strict=True):
            if any(type(each) is not int or not 0 <= each <= 6 for each in weekend):
                raise ValueError("a weekend of its holidays has no such day")
            if any(
                not isinstance(name, str) or not years[0] <= date.fromisoformat(day).year <= years[1]
                for day, name in named
            ):
                raise ValueError("a holiday lies in none of its years")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        return {
            "first": self.first,
            "last": self.last,
            "places": {
                place: {"weekend": list(weekend), "days": [list(each) for each in named]}
                for place, named, weekend in zip(self.places, self.days, self.weekends, strict=True)
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Holidays:
        """The inverse of `to_dict`. Raises ValueError, KeyError or TypeError."""
        places = values["places"]
        return cls(
            tuple(places),
            values["first"],
            values["last"],
            tuple(tuple((day, name) for day, name in each["days"]) for each in places.values()),
            tuple(tuple(each["weekend"]) for each in places.values()),
        )

    def on(self, place: str, days: np.ndarray, name: str | None = None) -> np.ndarray:
        """Whether each day (datetime64[D], any shape) is a holiday of a place, or the one of that name.

        Raises TaskError if a day lies beyond the years kept here, and the package is not installed."""
        index = self.places.index(place)
        found = [self._kept[index].get(name, _NEVER)]
        years = days.astype("datetime64[Y]").astype(np.int64) + 1970
        low, high = (int(years.min()), int(years.max())) if years.size else (self.first, self.last)
        if low < self.first:
            found.append(_by_name(_ask(place, low, self.first - 1)[0]).get(name, _NEVER))
        if high > self.last:
            found.append(_by_name(_ask(place, self.last + 1, high)[0]).get(name, _NEVER))
        return np.isin(days, np.concatenate(found))

    @cached_property
    def _kept(self) -> list[dict[str | None, np.ndarray]]:
        return [_by_name(named) for named in self.days]


_NEVER = np.array([], dtype="datetime64[D]")


def _by_name(named: Named) -> dict[str | None, np.ndarray]:
    """The days of each name, and all of them under None."""
    days: dict[str | None, list[str]] = {None: [day for day, _ in named]}
    for day, name in named:
        days.setdefault(name, []).append(day)
    return {name: np.array(each, dtype="datetime64[D]") for name, each in days.items()}


def find_holidays(places: Sequence[str], times: Sequence[np.ndarray]) -> Holidays:
    """The holidays of places ("US", "US-CA") from a year before the first of some times (T,) to ten after the last.

    Raises OptionError for a place that is not known, with the likeliest one; TaskError if the package is missing."""
    first = min(int(each[0].astype("datetime64[Y]").astype(np.int64)) for each in times) + 1970
    last = max(int(each[-1].astype("datetime64[Y]").astype(np.int64)) for each in times) + 1970
    for place in places:
        _check_place(place)
    first, last = first - 1, last + YEARS_AHEAD
    found = [_ask(place, first, last) for place in places]
    return Holidays(
        tuple(places), first, last, tuple(named for named, _ in found), tuple(weekend for _, weekend in found)
    )


@lru_cache(maxsize=256)
def _ask(place: str, first: int, last: int) -> tuple[Named, tuple[int, ...]]:
    """Days and weekend of a place as the package has them. Names are without what stands in brackets: a holiday that is
    kept on another day is the same holiday."""
    package = require("holidays", PACKAGES)
    country, _, part = place.partition("-")
    # Of a year it may give days of its neighbours, where they are kept.
    found = package.country_holidays(
        country, subdiv=part or None, years=range(first, last + 1), language="en_US"
    )
    named = sorted(
        (day.isoformat(), re.sub(r"\s*\([^)]*\)", "", name))
        for day, names in found.items()
        for name in names.split("; ")
        if first <= day.year <= last
    )
    return tuple(named), tuple(sorted(found.weekend))


def _check_place(place: str) -> None:
    package = require("holidays", PACKAGES)
    known: dict[str, list[str]] = package.list_supported_countries(include_aliases=False)
    country, _, part = place.partition("-")
    if country not in known:
        meant = _code_of(package, country)
        near = meant if meant in known else next(iter(get_close_matches(country.upper(), known, n=1)), None)
        hint = f"did you mean {near!r}?" if near else "write two letters of ISO 3166, such as US, DE or GB"
        raise OptionError(f"holidays are not known for {shown(place)}; {hint}")
    if part and part not in known[country]:
        parts = ", ".join(known[country]) or "none"
        raise OptionError(f"{country} has no subdivision {shown(part)}; those known are: {parts}")


def _code_of(package: Any, text: str) -> str | None:
    """The code of a country by another of its names: UK, USA, Germany."""
    made = getattr(package, text.title().replace(" ", ""), None) or getattr(package, text.upper(), None)
    code = getattr(made, "country", None)
    return code if isinstance(code, str) else None


# --- as features ------------------------------------------------------------------------------------------------


def holiday_names(holidays: Holidays, frequency: Frequency, times: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Names of the features that suit a frequency and these times.

    Days: "holiday US", "holiday eve US", "holiday after US", and the same for every holiday that the data has seen
    often. Hours and less: the first. Weeks: "holidays in week US". Months: "holidays in month US", "working days in
    month US". Raises DataError for any other frequency."""
    kinds = _kinds_of(frequency)
    names = []
    for place in holidays.places:
        often = _seen_often(holidays, place, times) if frequency.unit in DAYS else ()
        names += [_name(kind, place, holiday) for holiday in (None, *often) for kind in kinds]
    return tuple(names)


def _kinds_of(frequency: Frequency) -> tuple[str, ...]:
    if frequency.unit in WITHIN_DAY:
        return ("on",)
    kinds = {"W": ("week",), "M": ("month", "working")} | dict.fromkeys(DAYS, ("on", "eve", "after"))
    if frequency.multiple > 1 or frequency.unit not in kinds:
        raise DataError(
            f"holidays are known for hours, days, weeks and months, but the data has one value every {frequency.words}"
            "; leave holidays (--holidays) out"
        )
    return kinds[frequency.unit]


def _seen_often(holidays: Holidays, place: str, times: Sequence[np.ndarray]) -> tuple[str, ...]:
    first, last = min(each[0] for each in times), max(each[-1] for each in times)
    years: dict[str, set[str]] = {}
    for day, name in holidays.days[holidays.places.index(place)]:
        if first <= np.datetime64(day) <= last:
            years.setdefault(name, set()).add(day[:4])
    return tuple(sorted(name for name, each in years.items() if len(each) >= OFTEN))


def _name(kind: str, place: str, holiday: str | None) -> str:
    words = {"on": "", "eve": " eve", "after": " after"}
    if kind in words:
        return f"{'holiday' if holiday is None else holiday}{words[kind]} {place}"
    return {"week": "holidays in week", "month": "holidays in month", "working": "working days in month"}[
        kind
    ] + f" {place}"


def _features_of(holidays: Holidays) -> dict[str, tuple[str, str | None, str]]:
    """Every name that a feature of these holidays may have -> its place, holiday and kind."""
    found = {}
    for place, named in zip(holidays.places, holidays.days, strict=True):
        for holiday in (None, *sorted({name for _, name in named})):
            for kind in ("on", "eve", "after") if holiday else FEATURES:
                found[_name(kind, place, holiday)] = (place, holiday, kind)
    return found


def check_names(holidays: Holidays, names: Sequence[str]) -> None:
    """Raise ValueError unless these are names of features of these holidays, each once."""
    if not set(names) <= set(_features_of(holidays)) or len(set(names)) != len(names):
        raise ValueError("the features of its holidays are unknown")


def holiday_features(
    holidays: Holidays, names: Sequence[str], times: np.ndarray, frequency: Frequency
) -> np.ndarray:
    """The named features at `times` (T,), float64 (T, len(names)). The day after a holiday is that of the next step:
    after a holiday on Friday, Monday for business days."""
    known, made = _features_of(holidays), np.zeros((len(times), len(names)))
    for column, name in enumerate(names):
        place, holiday, kind = known[name]
        made[:, column] = FEATURES[kind](Asked(holidays, place, holiday, frequency), times)
    return made


@dataclass(frozen=True)
class Asked:
    """Which holidays a feature is about, and the frequency of its times."""

    holidays: Holidays
    place: str
    holiday: str | None
    frequency: Frequency

    def on(self, days: np.ndarray) -> np.ndarray:
        """Whether days are holidays."""
        return self.holidays.on(self.place, days, self.holiday)

    def beside(self, times: np.ndarray, steps: int) -> np.ndarray:
        """Whether the day so many steps on is a holiday, and the day itself is not."""
        days = times.astype("datetime64[D]")
        if self.frequency.unit == "B":
            other = np.busday_offset(days, steps, roll="backward" if steps > 0 else "forward")
        else:
            other = days + steps
        return self.on(other) & ~self.on(days)


def _in_week(asked: Asked, times: np.ndarray) -> np.ndarray:
    """Holidays from Monday to Sunday of the week in which the day lies."""
    days = times.astype("datetime64[D]")
    monday = days - ((days.astype(np.int64) + 3) % 7)
    return asked.on(monday[:, None] + np.arange(7)).sum(axis=1)


def _month(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The days (T, 31) from the first of the month on, and which of them lie in it."""
    month = times.astype("datetime64[M]")
    days = month.astype("datetime64[D]")[:, None] + np.arange(31)
    return days, days.astype("datetime64[M]") == month[:, None]


def _in_month(asked: Asked, times: np.ndarray) -> np.ndarray:
    days, inside = _month(times)
    return (asked.on(days) & inside).sum(axis=1)


def _working_days(asked: Asked, times: np.ndarray) -> np.ndarray:
    days, inside = _month(times)
    weekend = asked.holidays.weekends[asked.holidays.places.index(asked.place)]
    is_free = np.isin((days.astype(np.int64) + 3) % 7, weekend) | asked.on(days)
    return (~is_free & inside).sum(axis=1)


FEATURES: dict[str, Callable[[Asked, np.ndarray], np.ndarray]] = {
    "on": lambda asked, times: asked.on(times.astype("datetime64[D]")),
    "eve": lambda asked, times: asked.beside(times, 1),
    "after": lambda asked, times: asked.beside(times, -1),
    "week": _in_week,
    "month": _in_month,
    "working": _working_days,
}
