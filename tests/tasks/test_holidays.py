"""Holidays by country: which days, at which frequency, and that a run keeps those it learned with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars
import pytest

from cellwise.tasks.errors import DataError, OptionError, TaskError
from cellwise.tasks.forecasting import holidays as module
from cellwise.tasks.forecasting.calendar import Calendar, calendar_features, make_calendar, with_calendar
from cellwise.tasks.forecasting.forecaster import Forecaster
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.holidays import Holidays
from cellwise.tasks.forecasting.panel import Panel

pytest.importorskip("holidays")


def times_of(freq: str, start: str, count: int) -> np.ndarray:
    return parse_frequency(freq).times(np.datetime64(start, "us"), np.arange(count))


def features(freq: str, start: str, count: int, places: tuple[str, ...] = ("US",)) -> dict[str, list[float]]:
    frequency, times = parse_frequency(freq), times_of(freq, start, count)
    calendar = make_calendar(frequency, [times], places)
    panel = Panel(
        ("a",), frequency, (times,), (np.zeros(count),), (np.zeros((count, 0)),), (np.zeros((count, 0)),)
    )
    known = with_calendar(panel, calendar, 0).known[0]
    assert known.shape == (count, len(calendar))
    return {name: known[:, calendar.index(name)].tolist() for name in calendar.about_holidays}


def test_days() -> None:
    """Independence Day of 2023 was a Tuesday."""
    assert features("D", "2023-07-02", 5) == {
        "holiday US": [0, 0, 1, 0, 0],
        "holiday eve US": [0, 1, 0, 0, 0],
        "holiday after US": [0, 0, 0, 1, 0],
    }


def test_business_days_step_over_the_weekend() -> None:
    """New Year's Day of 2024 was a Monday; after Friday the 29th comes the holiday."""
    found = features("B", "2023-12-28", 5)
    assert found["holiday US"] == [0, 0, 1, 0, 0]
    assert found["holiday eve US"] == [0, 1, 0, 0, 0]
    assert found["holiday after US"] == [0, 0, 0, 1, 0]


def test_hours_weeks_and_months() -> None:
    assert features("6h", "2023-07-03T12:00", 8) == {"holiday US": [0, 0, 1, 1, 1, 1, 0, 0]}
    # The week of a Sunday ends there, that of a Monday begins there: both are that of Christmas 2023.
    assert features("W-SUN", "2023-12-24", 2) == {"holidays in week US": [0, 1]}
    assert features("W-MON", "2023-12-25", 2) == {"holidays in week US": [1, 1]}
    assert features("MS", "2023-11-01", 2) == {
        "holidays in month US": [3, 1],
        "working days in month US": [20, 20],
    }
    assert features("ME", "2023-11-30", 2)["working days in month US"] == [20, 20]


def test_a_holiday_seen_often_has_columns_of_its_own() -> None:
    names = features("D", "2019-06-01", 365 * 3)
    assert "Christmas Day US" in names
    assert "Juneteenth National Independence Day US" not in names  # in one of these years
    assert sum(names["Christmas Day eve US"]) == 3
    several = features("D", "2023-12-20", 20, ("DE-BY", "DE-BE"))
    assert several["holiday DE-BY"] != several["holiday DE-BE"]  # Epiphany


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("UK", "did you mean 'GB'"),
        ("USA", "did you mean 'US'"),
        ("Germany", "did you mean 'DE'"),
        ("us", "did you mean 'US'"),
        ("Q!", "write two letters of ISO 3166"),
        ("US-XX", "US has no subdivision 'XX'"),
    ],
)
def test_places_that_are_none(place: str, sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        make_calendar(parse_frequency("D"), [times_of("D", "2023-01-01", 10)], (place,))
    assert sentence in str(caught.value)


def test_frequencies_without_holidays() -> None:
    for freq in ("QS", "2D", "2W"):
        with pytest.raises(
            DataError, match=r"holidays are known for hours, .* leave holidays \(--holidays\) out"
        ):
            make_calendar(parse_frequency(freq), [times_of(freq, "2023-01-01", 10)], ("US",))
    with pytest.raises(DataError, match="holidays need dates"):
        make_calendar(parse_frequency("1"), [np.arange(10)], ("US",))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "holidays", None)
    module._ask.cache_clear()
    with pytest.raises(TaskError, match="pip install holidays"):
        make_calendar(parse_frequency("D"), [times_of("D", "2023-01-01", 10)], ("US",))


def test_what_was_kept_is_asked_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the package, or none, changes nothing within ten years of the data."""
    frequency, times = parse_frequency("D"), times_of("D", "2019-01-01", 1000)
    calendar = make_calendar(frequency, [times], ("US",))
    stored = json.loads(json.dumps(calendar.to_config()))
    stored["holidays"]["places"]["US"]["days"].append(["2024-02-29", "Leap Day"])
    monkeypatch.setitem(sys.modules, "holidays", None)
    module._ask.cache_clear()
    back = Calendar.from_config(stored)
    assert back == calendar
    assert back.holidays is not None
    days = np.array(["2024-02-28", "2024-02-29", "2029-12-25"], dtype="datetime64[D]")
    assert back.holidays.on("US", days).tolist() == [False, True, True]
    with pytest.raises(TaskError, match="pip install holidays"):
        back.holidays.on("US", np.array(["2040-12-25"], dtype="datetime64[D]"))


def test_years_beyond_are_computed() -> None:
    calendar = make_calendar(parse_frequency("D"), [times_of("D", "2019-01-01", 1000)], ("US",))
    assert calendar.holidays is not None
    days = np.array(["2044-12-25", "2044-12-27", "1999-07-04"], dtype="datetime64[D]")
    assert calendar.holidays.on("US", days).tolist() == [True, False, True]
    assert calendar.holidays.on("US", days, "Christmas Day").tolist() == [True, False, False]


BAD = [
    ("place", lambda made: made["holidays"]["places"].update({"../x": {"days": [], "weekend": []}})),
    ("day", lambda made: made["holidays"]["places"]["US"]["days"].append(["2024-02-30", "No Day"])),
    ("years", lambda made: made["holidays"]["places"]["US"]["days"].append(["1700-02-01", "Long Ago"])),
    ("weekend", lambda made: made["holidays"]["places"]["US"].update(weekend=[9])),
    ("span", lambda made: made["holidays"].update(last=10**9)),
    ("feature", lambda made: made["calendar"].append("Monday blues US")),
    ("twice", lambda made: made["calendar"].append("holiday US")),
    ("no dates", lambda made: made.pop("holidays")),
]


@pytest.mark.parametrize(("what", "spoil"), BAD, ids=[what for what, _ in BAD])
def test_damage_is_found(what: str, spoil: object) -> None:
    stored = make_calendar(parse_frequency("D"), [times_of("D", "2023-01-01", 30)], ("US",)).to_config()
    stored = json.loads(json.dumps(stored))
    Calendar.from_config(stored)
    spoil(stored)  # type: ignore[operator]
    with pytest.raises((ValueError, KeyError, TypeError)):
        Calendar.from_config(stored)


def test_a_run_keeps_its_holidays_for_any_horizon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = times_of("D", "2022-01-01", 500)
    frame = polars.DataFrame({"ds": days, "y": 10 + np.sin(np.arange(500))})
    made = Forecaster(horizon=7, hidden_size=4, epochs=1, holidays=["US"])
    made.fit(frame, folder=tmp_path / "run", progress=False)
    assert made.calendar_[-3:] == ("holiday US", "holiday eve US", "holiday after US")
    ahead = made.predict(horizon=30)
    monkeypatch.setitem(sys.modules, "holidays", None)
    module._ask.cache_clear()
    again = Forecaster.load(tmp_path / "run")
    assert again.holidays == ["US"]
    assert again.predict(horizon=30).equals(ahead)
    plain = Forecaster(horizon=7, hidden_size=4, epochs=1).fit(frame, progress=False)
    assert plain.network_.config.num_known == made.network_.config.num_known - 3


def test_cycles_are_as_they_were() -> None:
    times = times_of("D", "2022-01-01", 900)
    calendar = make_calendar(parse_frequency("D"), [times])
    assert calendar.holidays is None
    assert calendar.to_config() == {"calendar": list(calendar)}
    assert Holidays((), 2020, 2021, (), ()).to_dict()["places"] == {}
    assert calendar_features(calendar[:1], times[:1]).shape == (1, 1)
