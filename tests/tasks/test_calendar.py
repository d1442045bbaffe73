"""Calendar features say where in its periods a date lies, and only periods that the data has seen."""

from __future__ import annotations

import numpy as np
import pytest

from cellwise.tasks.forecasting.calendar import (
    Calendar,
    calendar_features,
    calendar_names,
    with_calendar,
)
from cellwise.tasks.forecasting.datasets import us_births, us_holidays
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.panel import Panel


def grid(name: str, start: str, count: int) -> np.ndarray:
    return parse_frequency(name).times(np.datetime64(start, "us"), np.arange(count))


def periods(name: str, count: int, start: str = "2020-01-01") -> list[str]:
    names = calendar_names(parse_frequency(name), [grid(name, start, count)])
    return sorted({feature.rsplit(" ", 2)[0] for feature in names})


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("h", 24 * 20, ["day of week", "time of day"]),
        ("h", 24 * 800, ["day of week", "day of year", "time of day"]),
        ("D", 10, []),
        ("D", 800, ["day of month", "day of week", "day of year"]),
        ("MS", 48, ["month of year"]),
        ("YS", 40, []),
        ("1", 500, []),
    ],
)
def test_only_periods_seen_twice(name: str, count: int, expected: list[str]) -> None:
    if name == "1":
        assert calendar_names(parse_frequency(1), [np.arange(count)]) == ()
    else:
        assert periods(name, count) == expected


def test_phases_by_hand() -> None:
    times = np.array(["2024-01-01T06:00", "2024-01-03T18:00"], dtype="datetime64[us]")  # Monday, Wednesday
    made = calendar_features(["time of day sin 1", "day of week cos 1", "day of year sin 2"], times)
    assert made[:, 0].tolist() == pytest.approx([1.0, -1.0])
    assert made[:, 1].tolist() == pytest.approx([1.0, np.cos(2 * np.pi * 2 / 7)])
    assert made[1, 2] == pytest.approx(np.sin(4 * np.pi * 2 / 366))


def test_months_go_round_in_a_year() -> None:
    times = np.array(["2024-01-31", "2024-04-01", "2024-07-15", "2025-01-01"], dtype="datetime64[us]")
    made = calendar_features(["month of year sin 1", "month of year cos 1"], times)
    assert made == pytest.approx(np.array([[0, 1], [1, 0], [0, -1], [0, 1]]), abs=1e-12)


@pytest.mark.parametrize(
    "names",
    [
        ["day of week sin 4"],
        ["phase of the moon sin 1"],
        ["day of week sin 1", "day of week sin 1"],
        ("day of week sin 1",),
        None,
    ],
)
def test_features_that_no_run_can_have(names: object) -> None:
    Calendar.from_config({"calendar": ["day of week sin 1", "month of year cos 3"]})
    with pytest.raises(ValueError, match="the features of its calendar are unknown"):
        Calendar.from_config({"calendar": names})


def test_seven_weekdays_are_told_apart_linearly() -> None:
    names = [f"day of week {wave} {k}" for k in (1, 2, 3) for wave in ("sin", "cos")]
    made = calendar_features(names, grid("D", "2024-01-01", 7))
    assert np.linalg.matrix_rank(np.column_stack([made, np.ones(7)])) == 7


def test_the_future_is_reached_and_continues_the_past() -> None:
    times = grid("D", "2020-01-01", 100)
    y = np.arange(90.0)
    panel = Panel(
        ("a",), parse_frequency("D"), (times[:90],), (y,), (np.zeros((90, 0)),), (np.zeros((90, 0)),)
    )
    names = calendar_names(panel.frequency, panel.times)
    made = with_calendar(panel, names, 10)
    assert made.known_names == names
    assert made.known[0] == pytest.approx(calendar_features(names, times))


def test_the_users_covariates_follow_the_calendar_and_set_its_reach() -> None:
    times = grid("D", "2020-01-01", 50)
    own = np.arange(45.0)[:, None]
    panel = Panel(
        ("a",), parse_frequency("D"), (times[:40],), (np.zeros(40),), (own,), (np.zeros((40, 0)),), ("promo",)
    )
    made = with_calendar(panel, ("day of week sin 1",), 10)
    assert made.known_names == ("day of week sin 1", "promo")
    assert made.known[0].shape == (45, 2)
    assert (made.known[0][:, 1] == own[:, 0]).all()


def test_bundled_births_are_the_published_ones() -> None:
    births = us_births()
    assert (births.height, births["y"].min(), births["y"].max()) == (5479, 5728, 16081)
    older = us_births("1969-1988")
    assert (older.height, older["y"][0], older["y"][-1]) == (7305, 8486, 9133)
    assert births.filter(births["ds"].is_duplicated()).height == 0


def test_holidays_of_a_year() -> None:
    year = np.arange("2014-01-01", "2015-01-01", dtype="datetime64[D]")
    on, near = us_holidays(year)
    expected = ["2014-01-01", "2014-05-26", "2014-07-04", "2014-09-01", "2014-11-27", "2014-12-25"]
    assert year[on].astype(str).tolist() == expected
    assert "2014-12-31" in year[near].astype(str).tolist()  # the eve of a holiday of the next year
    assert not (on & near).any()


def test_only_what_is_looked_at_is_computed() -> None:
    times, y = grid("D", "2020-01-01", 30), np.arange(30.0)
    nothing = np.zeros((30, 0))
    panel = Panel(("a",), parse_frequency("D"), (times,), (y,), (nothing,), (nothing,))
    whole = with_calendar(panel, ("day of week sin 1",), 5).known[0]
    tail = with_calendar(panel, ("day of week sin 1",), 5, last=10).known[0]
    assert np.isnan(tail[:20]).all()
    np.testing.assert_array_equal(tail[20:], whole[20:])
