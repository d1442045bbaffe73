"""Longer seasons than the first, the unit of a network's answers, and how many epochs suit the data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from panels import panel_of, random_series
from test_network import HORIZON, answers_along, trained, wild_network

from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.covariates import Covariates
from cellwise.tasks.forecasting.epochs import FEWEST, MOST, MOST_STEPS, USUAL, epochs_for
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.lags import LAG_BOUND, Lags, lag_features
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.stretches import CONTEXT, NO_LAGS
from cellwise.tasks.forecasting.unit import answer_unit
from cellwise.tasks.forecasting.windows import WindowSampler

NO_COVARIATES = Covariates((), (), (), ())
SEASONS = (4, 160)  # the second is longer than the walk of the network


@pytest.mark.parametrize(
    ("seasons", "horizon", "steps"),
    [
        ((24,), 24, ()),
        ((24, 168), 24, (168, 336, 504)),
        ((24, 168), 169, (336, 504, 672)),
        ((7, 365), 28, (364, 728, 1092)),
        ((1, 10), 3, (10, 20, 30)),
    ],
)
def test_lags_are_whole_seasons_known_at_every_cutoff(seasons, horizon, steps):
    lags = Lags.of(seasons, horizon)
    assert lags.steps == steps
    assert lags.reach == (steps[-1] + seasons[0] if steps else 0)


def test_lags_look_back_by_value_and_by_level():
    filled = np.random.default_rng(0).normal(size=60).cumsum()
    lags = Lags((8, 20), 4)
    values, moved = lags.values(filled, 15, 66), lags.moved(filled, 15, 60)
    for row, step in enumerate(range(15, 66)):
        for column, lag in enumerate(lags.steps):
            wanted = filled[step - lag] if 0 <= step - lag < 60 else np.nan
            assert values[row, column] == wanted or (np.isnan(values[row, column]) and np.isnan(wanted))
    for row, step in enumerate(range(15, 60)):
        for column, lag in enumerate(lags.steps):
            if step - lag - 3 < 0:
                assert np.isnan(moved[row, column])
            else:
                before = filled[step - lag - 3 : step - lag + 1].mean()
                assert moved[row, column] == pytest.approx(filled[step - 3 : step + 1].mean() - before)


def test_what_no_lag_knows_is_zero_and_what_is_wild_is_bounded():
    values = torch.tensor([[3.0, torch.nan, 1000.0]], dtype=torch.float64)
    found = lag_features(values, torch.tensor([1.0]), torch.tensor([2.0]))
    assert found.tolist() == [[1.0, 0.0, LAG_BOUND]]


@pytest.mark.parametrize("length", [30, CONTEXT, CONTEXT + 40, 900])
def test_training_and_forecasting_see_the_same_of_longer_seasons(length):
    series = random_series(1, length)
    panel = panel_of(series)
    network = wild_network(panel, seasons=SEASONS).eval()
    along = answers_along(network, panel)
    for cutoff in (0, 5, min(length, CONTEXT) - HORIZON):
        cut = network.forecast(panel.cut([cutoff + 1]), HORIZON)
        np.testing.assert_allclose(np.exp(along[cutoff]), cut[0], rtol=1e-4)


def test_a_value_one_long_season_ago_reaches_the_forecast_of_its_step():
    y = random_series(1, 600)[0]
    changed = y.copy()
    changed[600 + 2 - SEASONS[1]] *= 1.5
    plain, with_lags = (
        wild_network(panel_of([y]), **({"seasons": SEASONS} if lags else {})) for lags in (0, 1)
    )
    for network, reaches in ((plain, False), (with_lags, True)):
        network.config = replace(network.config, unit=1.0)
        before, after = (network.forecast(panel_of([each]), HORIZON) for each in (y, changed))
        moved = np.abs(after / before - 1).max(axis=(0, 2))
        others = np.delete(moved, 2).max()
        assert (moved[2] > 2 * others) == reaches


def test_it_learns_a_season_that_is_longer_than_its_walk():
    shape = np.random.default_rng(0).normal(size=SEASONS[1])
    y = 50 + np.tile(3 * shape, 9)
    cut = panel_of([y[: 8 * SEASONS[1]]], season_length=4)
    truth = y[8 * SEASONS[1] :][:HORIZON]
    errors = {}
    for seasons in ((4,), SEASONS):
        network = trained(cut, steps=150, horizon=HORIZON, seasons=seasons)
        errors[seasons] = np.abs(network.forecast(cut, HORIZON)[0, :, 2] - truth).mean()
    assert errors[SEASONS] < 0.5 * errors[(4,)]


def test_a_horizon_longer_than_trained_looks_back_from_its_own_end():
    series = random_series(1, 700)
    network = wild_network(panel_of(series), seasons=SEASONS)
    first = network.forecast(panel_of(series), HORIZON)[0, :, 2]
    second = network.forecast(panel_of([np.r_[series[0], first]]), HORIZON)[0, :, 2]
    long = network.forecast(panel_of(series), 2 * HORIZON)[0, HORIZON:, 2]
    np.testing.assert_allclose(long, second, rtol=1e-5)


def hourly(days, freq="h"):
    panel = panel_of([100 + np.random.default_rng(0).normal(size=24 * days)])
    return replace(panel, frequency=parse_frequency(freq))


@pytest.mark.parametrize(
    ("days", "freq", "wanted"),
    [(60, "h", (24, 168)), (30, "h", (24,)), (120, "30min", (48, 336)), (60, "5h", (1,)), (90, "D", (7,))],
)
def test_weeks_are_looked_at_where_there_are_enough_of_them(days, freq, wanted):
    config = NetworkConfig.for_panel(hourly(days, freq), horizon=24)
    assert config.seasons == wanted
    assert (config.lags == NO_LAGS) == (len(wanted) == 1) or config.lags.season == wanted[0]
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_seasons_begin_with_that_of_the_panel():
    with pytest.raises(ValueError, match="do not begin with that of 4 steps"):
        NetworkConfig.for_panel(panel_of(random_series()), horizon=3, seasons=(5, 10))


def test_smooth_series_have_a_larger_unit_and_first_bands_that_cover():
    """The steps of a random walk's rate of change say little of how far it is away after a horizon."""
    generator = np.random.default_rng(0)
    smooth = [1000 + generator.normal(size=300).cumsum().cumsum() for _ in range(40)]
    panel = panel_of(smooth, season_length=1)
    assert answer_unit(panel, 20, 0.1) > 2.0
    assert answer_unit(panel_of(random_series(20, 200, base=10.0)), 1, 0.1) == pytest.approx(1.0, abs=0.3)
    cut, truth = panel.cut([280] * 40), np.stack([y[280:] for y in smooth])
    covered = {}
    for unit in (None, 1.0):
        options = {} if unit is None else {"unit": unit}
        network = ForecastNetwork(NetworkConfig.for_panel(cut, horizon=20, hidden_size=4, **options))
        low, high = (network.forecast(cut, 20)[..., q] for q in (1, 3))
        covered[unit] = ((low <= truth) & (truth <= high)).mean()
    assert covered[1.0] < 0.45 < 0.55 < covered[None] < 0.95


def test_series_without_a_whole_horizon_leave_the_unit_at_one():
    assert answer_unit(panel_of([np.arange(5.0), np.full(9, np.nan)]), HORIZON, 0.1) == 1.0


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ((18,), FEWEST),
        ((105,), 7),
        ((5000,), MOST),
        ((17_000,), 28),
        ((15,) * 30, 30),
        ((36_000,), USUAL),
        ((110,) * 1428, USUAL),
    ],
)
def test_epochs_by_the_number_of_values(lengths, wanted):
    assert epochs_for(panel_of([np.arange(1.0, n + 1) for n in lengths]), 64) == wanted


def test_epochs_of_very_much_data_are_bounded_by_their_steps():
    panel = panel_of([np.ones(256)] * 3000)  # 3 windows each
    assert epochs_for(panel, 64) == USUAL
    assert epochs_for(panel, 1) == max(FEWEST, MOST_STEPS // 9000)
    sampler = WindowSampler(panel, horizon=3, covariates=NO_COVARIATES, typical_step=0.1, batch_size=1)
    assert len(sampler) == 9000


def test_missing_values_are_no_reason_for_more_epochs():
    y = np.where(np.arange(300) % 2 == 0, np.nan, 1.0)
    assert epochs_for(panel_of([y]), 64) == 10
