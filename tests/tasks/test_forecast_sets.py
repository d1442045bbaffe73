"""The sets of `benchmarks/forecast_data.py`: what is chosen on `part="dev"` has seen nothing of the test."""

from __future__ import annotations

import importlib
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cellwise.tasks.errors import OptionError


@pytest.fixture
def forecast_data(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("forecast_data")
    sys.modules.pop("forecast_data", None)


def test_births_end_where_the_test_begins(forecast_data: Any) -> None:
    whole, dev = forecast_data.load("births"), forecast_data.load("births", "dev")
    assert whole.frame.height - dev.frame.height == 28 + 23 * 15
    assert dev.frame.equals(whole.frame.head(dev.frame.height))


def test_each_series_is_cut_at_its_own_first_window_gaps_or_not(
    forecast_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = date(2020, 1, 1)

    def rows(name: str, days: range) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "unique_id": name,
                "ds": [start + timedelta(days=d) for d in days],
                "y": [float(d) for d in days],
            }
        )

    frame = pl.concat([rows("long", range(60)), rows("late", range(20, 58)), rows("short", range(50, 60))])
    frame = frame.filter(~pl.col("ds").is_between(start + timedelta(days=30), start + timedelta(days=34)))
    one = forecast_data.ForecastSet("own", "own", frame, 4, (7,), 3, 4)
    monkeypatch.setitem(forecast_data.SETS, "own", lambda: one)
    dev = forecast_data.load("own", "dev").frame
    last = dict(dev.group_by("unique_id").agg(pl.col("ds").max()).rows())
    assert last["long"] == start + timedelta(days=59 - 12)
    assert last["late"] == start + timedelta(days=57 - 12)
    assert last["short"] == start + timedelta(days=59)  # no window fits, so nothing of it is tested
    assert dev.filter(pl.col("unique_id") == "long").height == 48 - 5


def test_a_name_that_is_none(forecast_data: Any) -> None:
    with pytest.raises(OptionError, match="choose from births, vic_elec"):
        forecast_data.load("birth")
