"""The forecaster's network: what it may see, what its forecasts mean, and that it learns."""

import json
from itertools import islice

import numpy as np
import pytest
import torch
from panels import panel_of, random_series

from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.member import ordered
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.stretches import CONTEXT, collate
from cellwise.tasks.forecasting.windows import WindowSampler

HORIZON = 6


def wild_network(panel, seed=0, **options) -> ForecastNetwork:
    """Untrained, with weights large enough that every input matters."""
    torch.manual_seed(seed)
    options = {"hidden_size": 8, "horizon": HORIZON} | options
    network = ForecastNetwork(NetworkConfig.for_panel(panel, **options))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.4)
    return network


def forecast(series, network=None, horizon=HORIZON, **options):
    panel = panel_of(series, **options)
    network = wild_network(panel_of(random_series())) if network is None else network
    return network.forecast(panel, horizon)


NEGATIVE = [10 * np.random.default_rng(3).normal(size=60).cumsum()]
ZEROS = [np.random.default_rng(4).poisson(0.5, size=60).astype(float)]


@pytest.mark.parametrize("series", [random_series(), NEGATIVE, ZEROS], ids=["positive", "negative", "zeros"])
def test_a_forecast_in_thousandths_is_a_thousand_times_larger(series):
    np.testing.assert_allclose(forecast([1000 * y for y in series]), 1000 * forecast(series), rtol=1e-4)


def test_a_series_with_negative_values_may_be_moved():
    np.testing.assert_allclose(forecast([NEGATIVE[0] - 500]), forecast(NEGATIVE) - 500, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("series", [random_series(), NEGATIVE, ZEROS], ids=["positive", "negative", "zeros"])
def test_quantiles_do_not_cross(series):
    for horizon in (HORIZON, 40):
        assert (np.diff(forecast(series, horizon=horizon), axis=-1) >= 0).all()


def test_ordered_keeps_the_median_and_is_strict():
    raw = 5 * torch.randn(100, 7, generator=torch.Generator().manual_seed(0))
    made = ordered(raw)
    assert (made.diff(dim=-1) > 0).all()
    assert torch.equal(made[:, 3], raw[:, 3])


def test_the_last_observation_reaches_every_forecast():
    series = random_series(1)
    changed = [np.r_[series[0][:-1], 1.2 * series[0][-1]]]
    # the level moves by 0.4 of the change; the network's own part must move too, at every step
    shares = np.log(forecast(changed) / forecast(series))[0, :, 2]
    assert (np.abs(shares - 0.4 * np.log(1.2)) > 1e-3).all()


def plain_windows(network, panel) -> WindowSampler:
    """Batches of the series as they are."""
    config = network.config
    return WindowSampler(
        panel,
        horizon=config.horizon,
        covariates=config.covariates,
        typical_step=config.typical_step,
        batch_size=8,
        augment=False,
        lags=config.lags,
    )


def answers_along(network, panel, index=0):
    """The quantiles that training sees at every cutoff of a series, (C, H, Q) in learned units."""
    source = plain_windows(network, panel).prepared[index]
    window = source.cut(0, 0, min(CONTEXT, len(source)), HORIZON, lags=network.config.lags)
    batch = collate([window], HORIZON)
    seen, known = network._see(batch), batch.known.transpose(0, 1)
    answer = network.members[0](seen.inputs, known, batch.cutoffs, network._lagged(batch, seen))[
        :, 0
    ].double()
    return (seen.base[0][..., None] + answer * seen.spread[0][:, None, None]).detach().numpy()


@pytest.mark.parametrize("length", [30, CONTEXT, CONTEXT + 40])
def test_training_and_forecasting_see_the_same(length):
    """The answer at each cutoff in training is the forecast of the series cut there: nothing later is
    seen."""
    series = random_series(1, length)
    known = [np.random.default_rng(1).normal(size=(length, 2))]
    panel = panel_of(series, known=known)
    network = wild_network(panel).eval()
    along = answers_along(network, panel)
    for cutoff in (0, 1, 5, 17, 29 - HORIZON):
        cut = network.forecast(panel.cut([cutoff + 1]), HORIZON)
        np.testing.assert_allclose(np.exp(along[cutoff]), cut[0], rtol=1e-4)


def test_later_values_change_no_earlier_answer():
    series = random_series(1, 40)[0]
    network = wild_network(panel_of([series])).eval()
    one, other = (
        answers_along(network, panel_of([np.r_[series[:30], tail]]))
        for tail in (series[30:], 3 * series[30:][::-1])
    )
    np.testing.assert_allclose(one[:30], other[:30], rtol=1e-6)
    assert not np.allclose(one[30:], other[30:])


def test_a_longer_horizon_begins_with_the_shorter_one_and_its_bands_do_not_narrow_in_between():
    series = random_series()
    short, long = forecast(series), forecast(series, horizon=20)
    np.testing.assert_allclose(long[:, :HORIZON], short)
    assert np.isfinite(long).all()
    widths = np.log(long[..., -1] / long[..., 0])
    assert (widths[:, HORIZON:] >= widths[:, HORIZON - 1 : HORIZON]).all()


def test_a_longer_horizon_goes_on_from_its_own_medians():
    series = random_series(1)
    network = wild_network(panel_of(series))
    first = network.forecast(panel_of(series), HORIZON)[0, :, 2]
    second = network.forecast(panel_of([np.r_[series[0], first]]), HORIZON)[0, :, 2]
    np.testing.assert_allclose(
        network.forecast(panel_of(series), 2 * HORIZON)[0, HORIZON:, 2], second, rtol=1e-5
    )


def test_one_by_one_or_together_is_the_same():
    series = random_series(2, 70) + random_series(1, 9) + NEGATIVE + [np.array([3.0])] + ZEROS
    network = wild_network(panel_of(random_series()), members=2)
    together = network.forecast(panel_of(series), 9)
    alone = np.concatenate([network.forecast(panel_of([y]), 9) for y in series])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


CONSTANT = np.full(30, 7.0)
GAPS = np.where(np.arange(40) % 3 == 1, np.nan, 50 + 5 * np.sin(np.arange(40)))


ODD = {
    "one": np.array([42.0]),
    "one zero": np.array([0.0]),
    "two": np.array([-3.0, 4.0]),
    "constant": CONSTANT,
    "gaps": GAPS,
    "gaps at both ends": np.r_[np.nan, np.nan, 5.0, np.nan],
    "tiny": 1e-9 * CONSTANT,
    "huge": 1e12 * CONSTANT,
}


@pytest.mark.parametrize("y", ODD.values(), ids=ODD)
def test_odd_series_give_finite_forecasts_and_a_finite_loss(y):
    made = forecast([y])
    assert np.isfinite(made).all()
    panel = panel_of([y, *random_series()])
    network = wild_network(panel)
    network.loss(next(network.windows(panel).epoch(1))).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_a_constant_stays_and_a_zero_is_zero():
    network = wild_network(panel_of(random_series()))
    np.testing.assert_allclose(network.forecast(panel_of([CONSTANT]), 5)[..., 2], 7.0, rtol=0.05)
    assert (network.forecast(panel_of([np.zeros(30)]), 5) == 0).all()
    assert (network.forecast(panel_of(ZEROS), 5) >= 0).all()


def test_a_constant_in_the_training_data_does_not_drown_the_rest():
    panel = panel_of([np.r_[CONSTANT, 8.0], *random_series()])
    network = ForecastNetwork(NetworkConfig.for_panel(panel, horizon=HORIZON, hidden_size=8))
    assert network.loss(next(network.windows(panel).epoch(1))) < 100


def test_unknown_covariates_and_short_ones_are_refused():
    series = random_series(1, 20)
    known = [np.zeros((22, 1))]
    network = wild_network(panel_of(series, known=known))
    assert network.forecast(panel_of(series, known=known), 2).shape == (1, 2, 5)
    with pytest.raises(DataError, match="end 2 steps after the last observation, but the horizon is 3"):
        network.forecast(panel_of(series, known=known), 3)
    with pytest.raises(
        DataError, match="trained with 1 known and 0 past covariates, but the data has 0 and 0"
    ):
        network.forecast(panel_of(series), 2)


def test_a_series_without_observations_is_refused_by_name():
    with pytest.raises(SeriesTooShortError, match="'s1'"):
        forecast([np.arange(1.0, 9.0), np.full(5, np.nan)])


def test_a_known_covariate_of_a_step_changes_the_forecast_of_that_step():
    series = random_series(1, 30)
    known = [np.random.default_rng(0).normal(size=(30 + HORIZON, 2))]
    changed = [known[0].copy()]
    changed[0][30 + 2] += 1
    network = wild_network(panel_of(series, known=known))
    plain, other = (network.forecast(panel_of(series, known=k), HORIZON) for k in (known, changed))
    assert ((plain != other).any(axis=(0, 2)) == (np.arange(HORIZON) == 2)).all()


def test_past_covariates_reach_the_forecast():
    series = random_series(1, 30)
    past = [np.random.default_rng(0).normal(size=(30, 1))]
    network = wild_network(panel_of(series, past=past))
    plain, other = (network.forecast(panel_of(series, past=p), 10) for p in (past, [past[0] + 1]))
    assert np.isfinite(plain).all()
    assert not np.allclose(plain, other)


def test_config_goes_through_json():
    panel = panel_of(random_series(1, 30), known=[np.random.default_rng(0).normal(size=(30, 2))])
    config = NetworkConfig.for_panel(panel, horizon=3, cell="lstm", quantiles=(0.1, 0.5, 0.9))
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.num_known == 2


@pytest.mark.parametrize("quantiles", [(0.1, 0.9), (0.9, 0.5, 0.1), (0.1, 0.2, 0.5), (0.5, 0.5, 0.5)])
def test_quantiles_need_the_median_in_the_middle(quantiles):
    with pytest.raises(ValueError, match="in the middle"):
        NetworkConfig.for_panel(panel_of(random_series()), horizon=3, quantiles=quantiles)


def test_forecasting_leaves_the_network_as_it_was():
    panel = panel_of(random_series())
    network = wild_network(panel, dropout=0.5).train()
    first, second = network.forecast(panel, HORIZON), network.forecast(panel, HORIZON)
    np.testing.assert_array_equal(first, second)
    assert network.training


def trained(panel, steps, **options) -> ForecastNetwork:
    torch.manual_seed(0)
    network = ForecastNetwork(
        NetworkConfig.for_panel(panel, **({"hidden_size": 16, "dropout": 0.0} | options))
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    windows = plain_windows(network, panel)
    batches = (batch for epoch in range(steps) for batch in windows.epoch(epoch))
    for batch in islice(batches, steps):
        optimizer.zero_grad()
        network.loss(batch).backward()
        optimizer.step()
    return network


def test_it_learns_what_only_memory_can_tell():
    """Every fifteenth step jumps, longer ago than the window shows: a state must count the steps since
    then."""
    series = [np.where((np.arange(64) + shift) % 15 == 0, 3.0, -1.0) for shift in range(15)]
    cut = panel_of([y[:56] for y in series], season_length=1)
    network = trained(cut, steps=240, horizon=8)
    errors = np.abs(network.forecast(cut, 8)[..., 2] - [y[56:] for y in series])
    flat = np.abs(-1.0 - np.array([y[56:] for y in series]))
    assert errors.mean() < 0.5 * flat.mean()


def test_it_learns_what_a_known_covariate_does():
    generator = np.random.default_rng(0)
    known = [(generator.random((50, 1)) < 0.3).astype(float) for _ in range(12)]
    series = [100 + 40 * k[:, 0] + generator.normal(size=50) for k in known]
    cut = panel_of([y[:40] for y in series], known=[k[:40] for k in known], season_length=1)
    network = trained(cut, steps=60, horizon=10)
    made = network.forecast(panel_of([y[:40] for y in series], known=known, season_length=1), 10)[..., 2]
    assert np.abs(made - [y[40:] for y in series]).mean() < 6.0
