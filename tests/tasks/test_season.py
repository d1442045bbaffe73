"""The season of a panel is the one its values show; what shows none keeps what the frequency suggests."""

from __future__ import annotations

import numpy as np
import polars
import pytest

from cellwise.tasks.forecasting.datasets import us_births
from cellwise.tasks.forecasting.frames import Columns, read_table
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.season import correlation, detrended, find_season, plausible_seasons

SHAPE = np.array([3.0, 1.0, -1.0, -2.0, 0.0, 0.0, -1.0])  # of a week


def panel_of(*series: np.ndarray, frequency: str | int = 1) -> Panel:
    grid = parse_frequency(frequency)
    start = 0 if grid.is_integer else np.datetime64("2020-01-01", "us")
    empty = tuple(np.zeros((len(y), 0)) for y in series)
    return Panel(
        tuple(f"s{i}" for i in range(len(series))),
        grid,
        tuple(grid.times(start, np.arange(len(y))) for y in series),
        tuple(np.asarray(y, dtype=float) for y in series),
        empty,
        empty,
    )


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def weeks(count: int, seed: int = 0) -> np.ndarray:
    return np.resize(SHAPE, count) + noise(count, seed)


def harmonic(count: int, season_length: int) -> np.ndarray:
    return np.sin(2 * np.pi * np.arange(count) / season_length)


@pytest.mark.parametrize(
    "y",
    [
        weeks(200),
        weeks(200) + 0.3 * np.arange(200),  # a trend
        weeks(400) + 2 * noise(400, seed=5).cumsum() / 3,  # a wandering level
        np.exp(weeks(200) / 4 + np.arange(200) / 50),  # growth, and a season that grows with it
        np.where(np.arange(200) % 11 == 3, np.nan, weeks(200)),  # gaps
        np.where(np.arange(200) == 77, 1e4, weeks(200)),  # a mistake
        np.random.default_rng(2).poisson(
            np.resize([2.0, 0.05, 0.05, 0.3, 0.05, 0.05, 0.05], 300)
        ),  # mostly zeros
    ],
)
def test_numbered_steps_show_their_week(y: np.ndarray) -> None:
    found = find_season(panel_of(y))
    assert (found.length, found.note) == (7, "the season is 7 steps, found in the data")


@pytest.mark.parametrize("season_length", [2, 4, 12, 24, 48, 168])
def test_seasons_of_every_length_are_found(season_length: int) -> None:
    count = 12 * season_length + 20
    sharp = np.resize(np.random.default_rng(1).normal(size=season_length), count)
    assert find_season(panel_of(sharp + 0.1 * noise(count))).length == season_length
    if season_length > 4:
        count = 20 * season_length
        smooth = 3 * harmonic(count, season_length)
        assert find_season(panel_of(smooth + noise(count))).length == season_length


@pytest.mark.parametrize("seed", range(5))
def test_what_has_no_season_shows_none(seed: int) -> None:
    white, count = noise(500, seed), 500
    autoregressive = np.zeros(count)
    for t in range(1, count):
        autoregressive[t] = 0.8 * autoregressive[t - 1] + white[t]
    zeros = np.random.default_rng(seed).poisson(0.2, count)
    for y in (white, white.cumsum(), white.cumsum().cumsum(), autoregressive, zeros, np.abs(white) ** 4):
        assert find_season(panel_of(y)).length == 1


def test_a_cycle_of_changing_length_is_no_season() -> None:
    """As of sunspots: its length varies, so that it is out of step after a few turns."""
    lengths = np.random.default_rng(0).integers(8, 15, size=40)
    y = np.concatenate([1 + np.cos(2 * np.pi * np.arange(n) / n) for n in lengths])
    assert find_season(panel_of(y + 0.1 * noise(len(y)))).length == 1


@pytest.mark.parametrize(
    "y", [np.full(100, 5.0), np.arange(100.0), np.zeros(100), np.ones(3), np.array([1.0, np.nan, 2.0])]
)
def test_what_does_not_move_or_is_short_tells_nothing(y: np.ndarray) -> None:
    for frequency, season_length in ((1, 1), ("D", 7), ("MS", 12)):
        found = find_season(panel_of(y, frequency=frequency))
        assert (found.length, found.also, found.note) == (season_length, (), "")


def test_many_short_series_show_together_what_each_does_not() -> None:
    quarters = [np.resize([1.0, 0.0, -1.0, 0.0], 20) + noise(20, seed) for seed in range(50)]
    assert sum(find_season(panel_of(y)).length == 4 for y in quarters) < 10
    assert find_season(panel_of(*quarters)).length == 4


def test_the_natural_season_stays_and_longer_ones_are_named() -> None:
    hours = np.tile(harmonic(24, 24), 7 * 12) + np.repeat(np.tile([0, 0, 0, 0, 0, 2, 2], 12), 24)
    panel = panel_of(hours + 0.3 * noise(len(hours)), frequency="h")
    found = find_season(panel)
    assert (found.length, found.also) == (24, (168,))
    assert found.note == "the season is 24 hours, by frequency; the week of 168 shows too"
    assert plausible_seasons(panel) == (24, 168)
    daily = panel_of(np.tile(harmonic(24, 24), 7 * 12) + 0.3 * noise(len(hours)), frequency="h")
    assert find_season(daily).note == ""
    assert plausible_seasons(daily) == (24,)
    assert plausible_seasons(panel_of(noise(300), frequency="YS")) == ()


def test_days_of_births_have_a_week_and_a_year() -> None:
    births = us_births()["y"].to_numpy().astype(float)
    assert plausible_seasons(panel_of(births, frequency="D")) == (7, 365)


def test_a_season_that_the_frequency_does_not_suggest() -> None:
    found = find_season(panel_of(np.resize([0.0, 0.0, 4.0, 0.0, 1.0], 300) + noise(300), frequency="D"))
    assert (found.length, found.note) == (5, "the season is 5 days, not the 7 that the frequency suggests")
    none = find_season(panel_of(noise(300), frequency="D"))
    assert (none.length, none.note) == (
        7,
        "the season is 7 days, by frequency, though it does not show in the data",
    )


def test_two_cycles_are_too_few_to_tell() -> None:
    y = np.random.default_rng(0).normal(size=104)
    assert find_season(panel_of(y, frequency="W")) == find_season(panel_of(y[:60], frequency="W"))
    assert find_season(panel_of(y, frequency="W")).length == 52


def test_the_table_says_what_was_found_unless_it_was_told() -> None:
    frame = polars.DataFrame({"ds": np.arange(200), "y": weeks(200)})
    found = read_table(frame, Columns())
    assert found.panel.frequency.season_length == 7
    assert found.notes == ("the season is 7 steps, found in the data",)
    for told in (read_table(frame, Columns(), None, 3), read_table(frame, Columns(), "1", 3)):
        assert (told.panel.frequency.season_length, told.notes) == (3, ())
    again = read_table(frame[:150], Columns(), parse_frequency(1, 3))
    assert (again.panel.frequency.season_length, again.notes) == (3, ())


def test_a_trend_leaves_no_correlation_and_a_season_all() -> None:
    rest = detrended(np.arange(20.0)[None] + np.resize([1.0, -1.0], 20), 2)
    assert np.allclose(np.abs(rest), 1.0)
    exact = correlation([np.resize([1.0, 2.0, 6.0], 60)], 3)
    assert exact is not None
    assert exact.at_lag[[3, 6, 9]] == pytest.approx(
        1.0, abs=0.005
    )  # the number of pairs differs from lag to lag
    # Bartlett (1946), by hand: deviations -2, -1, 3 have the correlation (2 - 3 - 6) / 14 = -1/2 at lags 1 and 2;
    # 58 values less their average leave 55 pairs.
    assert exact.error == pytest.approx(np.sqrt((1 + 2 * (1 / 4 + 1 / 4)) / 55), rel=0.02)


@pytest.mark.parametrize(
    ("name", "cycles"),
    [
        ("h", {"day": 24, "week": 168, "year": 8766}),
        ("30min", {"day": 48, "week": 336}),
        ("D", {"week": 7, "year": 365}),
        ("2D", {"year": 182}),
        ("MS", {"year": 12}),
        ("5MS", {"year": 2}),
        ("YS", {}),
        ("1", {}),
    ],
)
def test_cycles_of_a_frequency(name: str, cycles: dict[str, int]) -> None:
    frequency = parse_frequency(name)
    found = dict(frequency.cycles)
    if name == "30min":
        assert found.pop("hour") == 2
    assert found == cycles
