"""Stepping along grids: out and back again, reading them off the data, and the words of what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwise.tasks.forecasting.errors import FrequencyError
from cellwise.tasks.forecasting.frequency import infer_frequency, parse_frequency, settle_frequency

# name -> (a time on its grid, canonical name, season)
GRIDS = {
    "s": ("2020-01-31T10:11:12", "s", 60),
    "min": ("2020-01-31T10:11", "min", 60),
    "15min": ("2020-01-31T10:15", "15min", 96),
    "30min": ("2020-01-31T10:30", "30min", 48),
    "h": ("2020-01-31T10:00", "h", 24),
    "H": ("2020-01-31T10:00", "h", 24),
    "D": ("2020-01-31", "D", 7),
    "B": ("2020-01-31", "B", 5),
    "W": ("2020-01-31", "W-FRI", 52),
    "W-SUN": ("2020-02-02", "W-SUN", 52),
    "MS": ("2020-01-01", "MS", 12),
    "M": ("2020-01-31", "ME", 12),
    "ME": ("2020-01-31", "ME", 12),
    "QS": ("2020-01-01", "QS", 4),
    "Q": ("2020-03-31", "QE", 4),
    "QE-DEC": ("2020-03-31", "QE", 4),
    "YS": ("2020-01-01", "YS", 1),
    "Y": ("2020-12-31", "YE", 1),
    "2MS": ("2020-01-01", "2MS", 6),
}


def days(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[us]")


@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_is_walked_recognised_and_counted(name: str) -> None:
    start, canonical, season = GRIDS[name]
    times = parse_frequency(name).times(np.datetime64(start, "us"), np.arange(-20, 30))
    settled = settle_frequency(parse_frequency(name), [times])
    again = settled.times(np.datetime64(start, "us"), np.arange(-20, 30))
    assert (np.diff(again).astype(np.int64) > 0).all()
    assert settled.steps(again[0], again).tolist() == list(range(50))
    assert (settled.name, settled.season_length) == (canonical, season)
    assert infer_frequency([again]).name == canonical


@pytest.mark.parametrize(
    ("name", "last", "expected"),
    [
        ("ME", "2024-01-31", ["2024-02-29", "2024-03-31", "2024-04-30"]),
        ("ME", "2024-02-29", ["2024-03-31", "2024-04-30", "2024-05-31"]),
        ("MS", "2023-11-01", ["2023-12-01", "2024-01-01", "2024-02-01"]),
        ("QE", "2023-12-31", ["2024-03-31", "2024-06-30", "2024-09-30"]),
        ("B", "2024-03-28", ["2024-03-29", "2024-04-01", "2024-04-02"]),
        ("W-SUN", "2024-12-29", ["2025-01-05", "2025-01-12", "2025-01-19"]),
        ("YS", "2024-01-01", ["2025-01-01", "2026-01-01", "2027-01-01"]),
    ],
)
def test_the_future(name: str, last: str, expected: list[str]) -> None:
    found = parse_frequency(name).future(np.datetime64(last, "us"), 3)
    assert (found == days(*expected)).all()


def test_integers_step_by_their_own_distance() -> None:
    times = np.array([1950, 1955, 1965, 1960 + 10], dtype=np.int64)
    frequency = infer_frequency([times])
    assert (frequency.name, frequency.season_length) == ("5", 1)
    assert frequency.steps(times[0], times).tolist() == [0, 1, 3, 4]
    assert frequency.future(np.int64(1970), 2).tolist() == [1975, 1980]


@given(
    st.sampled_from(["h", "D", "B", "W", "MS", "QS", "YS", "30min"]),
    st.integers(0, 20_000),
    st.integers(1, 400),
)
def test_steps_undo_times(name: str, day: int, count: int) -> None:
    frequency = parse_frequency(name)
    start = np.datetime64(day, "D").astype("datetime64[us]")
    if name == "B":
        start = np.busday_offset(np.datetime64(day, "D"), 0, roll="forward").astype("datetime64[us]")
    if name[-1] == "S":
        start = start.astype("datetime64[M]").astype("datetime64[us]")
    steps = np.arange(-count, count)
    assert (frequency.steps(start, frequency.times(start, steps)) == steps).all()


def test_gaps_do_not_hide_the_frequency() -> None:
    times = days("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-09", "2024-01-10", "2024-01-20")
    assert infer_frequency([times]).name == "D"


def test_weekdays_only_is_business_days() -> None:
    weekdays = parse_frequency("B").times(np.datetime64("2024-01-01", "us"), np.arange(20))
    assert infer_frequency([weekdays]).name == "B"
    assert infer_frequency([weekdays[:3]]).name == "D"  # three days in a row prove nothing


@pytest.mark.parametrize(
    ("name", "times", "sentence"),
    [
        (
            "D",
            days("2024-01-01", "2024-01-01T06:00"),
            "D does not fit the data: 2024-01-01 06:00:00 is not on its grid",
        ),
        ("W-SUN", days("2024-01-01", "2024-01-08"), "W-SUN does not fit the data: 2024-01-01"),
        ("MS", days("2024-01-31", "2024-02-29"), r"every month start from 2024-01-31 on"),
        ("ME", days("2024-01-15", "2024-02-15"), r"every month end"),
        ("B", days("2024-01-05", "2024-01-06"), "2024-01-06 is not on its grid"),
    ],
)
def test_what_does_not_fit_is_named(name: str, times: np.ndarray, sentence: str) -> None:
    with pytest.raises(FrequencyError, match=sentence):
        parse_frequency(name).steps(times[0], times)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("24h", "D"), ("1440min", "D"), ("86400s", "D"), ("3600s", "h"), ("60min", "h"), ("60s", "min"), ("7D", "W"),
        ("168h", "W"), ("14D", "2W"), ("48h", "2D"), ("120min", "2h"), ("1800s", "30min"), ("3MS", "QS"),
        ("12ME", "YE"), ("4QS", "YS"), ("6M", "2Q"), ("1D", "D"), ("24H", "D"), ("60T", "h"),
    ],
)  # fmt: skip
def test_one_distance_has_one_name_and_one_season(name: str, same: str) -> None:
    assert parse_frequency(name) == parse_frequency(same)


@pytest.mark.parametrize("name", ["5h", "90min", "45s", "5D", "5MS", "2B", "7"])
def test_a_distance_that_no_larger_unit_holds_keeps_its_own(name: str) -> None:
    assert parse_frequency(name).name == name


def test_weeks_told_in_days_are_those_of_the_data() -> None:
    times = parse_frequency("7D").times(np.datetime64("2024-01-03", "us"), np.arange(30))
    settled = settle_frequency(parse_frequency("7D"), [times])
    assert settled == infer_frequency([times])
    assert (settled.name, settled.season_length) == ("W-WED", 52)


@pytest.mark.parametrize("name", ["", "foo", "0D", "D D", "daily", "-1", "1.5h"])
def test_what_is_no_frequency(name: str) -> None:
    with pytest.raises(FrequencyError, match="is not a frequency; write one of"):
        parse_frequency(name)


def test_what_is_no_weekday() -> None:
    with pytest.raises(FrequencyError, match="names no day of the week"):
        parse_frequency("W-FOO")


def test_one_observation_shows_no_frequency() -> None:
    with pytest.raises(FrequencyError, match=r"give it with freq \(--freq\)"):
        infer_frequency([days("2024-01-01")])


def test_less_than_a_second_is_no_frequency() -> None:
    times = np.datetime64("2024-01-01", "us") + np.arange(20) * np.timedelta64(250, "ms")
    with pytest.raises(FrequencyError, match="less than a second apart; number them"):
        infer_frequency([times])


def test_a_number_off_the_grid_is_named() -> None:
    with pytest.raises(FrequencyError, match="2 does not fit the data: 3 is not on its grid"):
        parse_frequency("2").steps(np.int64(0), np.array([0, 2, 3]))


def test_in_words() -> None:
    assert parse_frequency("D").many(28) == "28 days"
    assert parse_frequency("30min").many(48) == "48 steps of 30 minutes"
    assert parse_frequency("MS").many(1) == "1 month"
