"""Rows that are missing here and there are filled; a gap that no one can mean is a question."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas
import polars
import pytest

from cellwise.tasks import Forecaster
from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.errors import FrequencyError
from cellwise.tasks.forecasting.frames import Columns, Table, read_table

DAYS = [dt.date(2024, 1, 1) + dt.timedelta(i) for i in range(60)]
HOURS = [dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(500)]


def table(times: Any, frequency: str | None = None) -> Table:
    return read_table(polars.DataFrame({"ds": times, "y": np.arange(len(times)) + 1.0}), Columns(), frequency)


@pytest.mark.parametrize(
    ("times", "frequency", "row"),
    [
        ([*HOURS[:-1], dt.datetime(2034, 1, 21)], None, "row 499"),
        ([*HOURS[:-1], dt.datetime(2034, 1, 21)], "h", "row 499"),
        ([HOURS[0].replace(year=2014), *HOURS[1:]], None, "row 0"),
        ([*HOURS[:250], HOURS[250].replace(year=2042), *HOURS[251:]], "h", "row 250"),
        ([*DAYS[:-1], DAYS[-1].replace(year=2042, day=1)], None, "row 59"),
        ([*range(100), 10**12], None, "row 100"),
        ([*range(100), 10**12], "1", "row 100"),
    ],
)
def test_one_mistyped_time_is_named(times: list[Any], frequency: str | None, row: str) -> None:
    with pytest.raises(DataError, match=f"a gap of .*: look at {row} ") as caught:
        table(times, frequency)
    assert "mend the time" in str(caught.value)


@pytest.mark.parametrize("frequency", ["MS", "W", "QS"])
def test_one_mistyped_year_of_slow_data_is_named(frequency: str) -> None:
    times = pandas.date_range("2015-01-01", periods=30, freq=frequency).tolist()
    times[29] = times[29].replace(year=2099, day=1)
    with pytest.raises(DataError, match="look at row 29"):
        table(times, "D" if frequency == "W" else None)


TRADED = pandas.date_range("2024-01-04 09:30", "2024-01-16", freq="min")
CLOSED_OFTEN = {
    "trading minutes": TRADED[(TRADED.dayofweek < 5) & (TRADED.hour >= 9) & (TRADED.hour < 16)],
    "two trading days": TRADED[(TRADED.day.isin([5, 8])) & (TRADED.hour >= 9) & (TRADED.hour < 16)],
    "two summers": pandas.date_range("2023-06-01", periods=90).append(
        pandas.date_range("2024-06-01", periods=80)
    ),
    "two days in January": pandas.date_range("2024-01-01", periods=48, freq="h").append(
        pandas.date_range("2024-01-20", periods=40, freq="h")
    ),
}


@pytest.mark.parametrize("case", CLOSED_OFTEN)
def test_what_is_closed_often_is_no_mistake(case: str) -> None:
    made = table(CLOSED_OFTEN[case].to_numpy())
    assert "were absent from the data" in made.notes[0]


def test_years_that_no_one_means_are_named_before_a_grid_is_laid() -> None:
    for year in (9024, 1024):
        with pytest.raises(DataError, match=f"at row 3, in the year {year}"):
            table([*DAYS[:3], dt.date(year, 1, 4), *DAYS[4:]])


def test_one_series_of_many_is_named() -> None:
    frame = polars.DataFrame({"unique_id": ["a"] * 60 + ["b"] * 60, "ds": DAYS * 2, "y": np.arange(120.0)})
    frame[100, "ds"] = dt.date(2061, 2, 10)
    with pytest.raises(
        DataError, match=r"series 'b' has 60 rows and a gap .* look at row 100 \(2061-02-10\)"
    ):
        read_table(frame, Columns())


def test_a_finer_frequency_than_any_memory_holds() -> None:
    times = [dt.datetime(2024, 1, 1) + dt.timedelta(days=i + i // 5) for i in range(90)]
    with pytest.raises(DataError, match="times would be absent if there were one every second"):
        table(times, "s")


def test_a_year_away_is_no_mistake() -> None:
    """A sensor that was off for a year in five is filled, as ever."""
    days = [dt.date(2019, 1, 1) + dt.timedelta(i) for i in range(1826)]
    made = table([day for day in days if day.year != 2021])
    assert made.panel.lengths.tolist() == [1826]
    assert "365 of 1,826 times were absent" in made.notes[0]


RNG = np.random.default_rng(0)
SPARSE = {
    "D": np.datetime64("2024-01-01") + np.cumsum(RNG.integers(2, 9, 80)),
    "h": np.datetime64("2024-01-01T00", "h") + np.cumsum(RNG.integers(3, 40, 80)),
    "W": np.datetime64("2024-01-01") + 7 * np.cumsum(RNG.integers(2, 6, 80)),
    "MS": np.datetime64("2004-01") + np.cumsum(RNG.integers(2, 6, 40)),
    "2D": np.datetime64("2024-01-01") + 2 * np.cumsum(RNG.integers(2, 9, 80)),
}


@pytest.mark.parametrize("frequency", SPARSE)
def test_rows_between_which_others_are_missing(frequency: str) -> None:
    times = SPARSE[frequency].astype("datetime64[us]")
    made = table(times, frequency)
    assert made.panel.frequency.name.startswith(frequency)
    assert made.panel.times[0][-1] == times[-1]
    assert np.isfinite(made.panel.y[0]).sum() == len(times)
    assert "were absent from the data and count as missing" in made.notes[0]


def test_sparse_rows_are_learned_and_forecast() -> None:
    sparse = pandas.DataFrame({"ds": SPARSE["D"], "y": 1.0 + np.arange(80.0)})
    days = pandas.date_range("2024-01-01", periods=90)
    made = Forecaster(horizon=3, freq="D", hidden_size=4, epochs=1).fit(sparse, progress=False).predict()
    assert np.isfinite(made["GRU"]).all()
    assert made["ds"][0] == pandas.Timestamp(SPARSE["D"][-1]) + pandas.Timedelta(days=1)
    dense = pandas.DataFrame({"ds": days, "y": 1.0 + np.arange(90.0)})
    learned = Forecaster(horizon=3, hidden_size=4, epochs=1).fit(dense, progress=False)
    for rows in (80, 2, 1):
        assert np.isfinite(learned.predict(sparse[:rows])["GRU"]).all()


@pytest.mark.parametrize(
    ("given", "times"), [("D", "2024-01-01/7"), ("h", "2024-01-01/1"), ("s", "2024-01-01/1")]
)
def test_a_coarser_grid_without_a_gap_is_the_frequency(given: str, times: str) -> None:
    start, _, step = times.partition("/")
    with pytest.raises(FrequencyError, match="they look like"):
        table(np.datetime64(start, "us") + np.arange(20) * np.timedelta64(int(step), "D"), given)


def test_rows_off_the_grid_are_named() -> None:
    times = np.append(SPARSE["D"].astype("datetime64[us]"), np.datetime64("2026-01-01T12:00"))
    with pytest.raises(FrequencyError, match="2026-01-01 12:00:00 is not on its grid"):
        table(times, "D")
