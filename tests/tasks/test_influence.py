"""Influence is measured right where the answer is known: for a forecast written by hand, and for a network that learned
from data whose covariate has a known effect."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import polars
import pytest
from panels import panel_of

from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting.backtest import Backtest, rolling_forecasts
from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.covariates import Covariates
from cellwise.tasks.forecasting.influence import (
    PAST,
    Group,
    contributions,
    error_growth,
    groups_of,
    lag_blocks,
    past_influence,
)
from cellwise.tasks.forecasting.panel import Panel

H = 4
EFFECTS = (10.0, 0.0)  # of the two covariates, by hand


@dataclass
class ByHand:
    """The value `lag` steps before the first that is forecast, and EFFECTS of the covariates at each step; the last
    known value where that one is missing."""

    lag: int = 1
    together: float = 0.0  # what the first covariate and the past do together
    cleans: bool = False  # whether it takes the effects out of the past before
    context_length: int = 40

    @property
    def config(self) -> NetworkConfig:
        return NetworkConfig(H, 4, Covariates((0.5, 0.0), (1.0, 1.0), (), ()), quantiles=(0.1, 0.5, 0.9))

    def forecast(self, panel: Panel, horizon: int) -> np.ndarray:
        made = []
        for y, known in zip(panel.y, panel.known, strict=True):
            y = y - known[: len(y)] @ np.array(EFFECTS) if self.cleans else y
            seen = y[~np.isnan(y)]
            base = y[-self.lag] if np.isfinite(y[-self.lag]) else seen[-1]
            ahead = known[len(y) : len(y) + horizon]
            made.append(base + ahead @ np.array(EFFECTS) + self.together * base * ahead[:, 0])
        return np.stack(made)[..., None] + np.array([-1.0, 0.0, 1.0])


def panel_by_hand(steps: int = 80) -> Panel:
    generator = np.random.default_rng(0)
    known = np.column_stack([generator.integers(0, 2, steps + H), generator.normal(size=steps + H)])
    level = np.arange(steps) % 4
    return panel_of([100 + level + known[:steps] @ np.array(EFFECTS)], known=[known])


def backtest_by_hand(network: ByHand, panel: Panel) -> Backtest:
    cutoffs = np.arange(40, 72, H)[None]
    return rolling_forecasts(
        network.forecast, panel, cutoffs, H, name="by hand", quantiles=network.config.quantiles, levels=(80,)
    )


def test_the_error_grows_without_the_covariate_that_is_used_and_not_without_the_other() -> None:
    network, panel = ByHand(lag=4, cleans=True), panel_by_hand()
    backtest = backtest_by_hand(network, panel)
    first, second = error_growth(network, backtest, groups_of(panel, ()))
    assert (first.group.name, second.group.name) == ("k0", "k1")
    assert first.percent > 100
    assert first.least <= first.percent <= first.most
    assert (second.percent, second.least, second.most) == (0.0, 0.0, 0.0)


def test_groups_are_the_users_covariates_and_the_calendar_as_one() -> None:
    panel = replace(panel_by_hand(), known_names=("day of week sin 1", "promo"))
    assert groups_of(panel, ("day of week sin 1",)) == (
        Group("promo", "known", (1,)),
        Group("the calendar", "calendar", (0,)),
    )


def test_only_what_a_forecast_looks_at_is_changed_and_the_data_is_not() -> None:
    network, panel = ByHand(context_length=8), panel_by_hand()
    before = [column.copy() for column in panel.known]
    backtest = backtest_by_hand(network, panel)
    error_growth(network, backtest, groups_of(panel, ()))
    past_influence(network, backtest)
    contributions(network, panel, groups_of(panel, ()), H)
    for old, new in zip(before, panel.known, strict=True):
        np.testing.assert_array_equal(old, new)
    assert np.isfinite(panel.y[0]).all()


@pytest.mark.parametrize("lag", [1, 3, 6])
def test_of_the_past_the_block_is_found_that_the_forecast_uses(lag: int) -> None:
    network, panel = ByHand(lag), panel_by_hand()
    found = past_influence(network, backtest_by_hand(network, panel))
    moved = {(each.first, each.last): each.moved for each in found}
    (block,) = [each for each in moved if each[0] <= lag <= each[1]]
    assert moved.pop(block) > 5
    assert set(moved.values()) == {0.0}


def test_blocks_cover_the_past_without_gaps() -> None:
    for steps, season in itertools.product((1, 2, 5, 20, 212, 5000), (1, 4, 7, 24, 400)):
        blocks = lag_blocks(steps, season)
        assert blocks[0][0] == 1 and blocks[-1][1] == steps and len(blocks) <= 7
        assert all(a[1] + 1 == b[0] for a, b in itertools.pairwise(blocks))


def test_contributions_add_up_and_are_each_covariates_effect() -> None:
    panel, network = panel_by_hand(), ByHand()
    found = contributions(network, panel, groups_of(panel, ()), H)
    assert found.names == (PAST, "k0", "k1")
    np.testing.assert_allclose(found.start + found.values.sum(1), found.forecast)
    ahead = panel.known[0][80:]
    np.testing.assert_allclose(found.values[0, 1], EFFECTS[0] * (ahead[:, 0] - 0.5))  # absent: at the mean
    np.testing.assert_allclose(found.values[0, 2], 0.0)
    np.testing.assert_allclose(found.values[0, 0], panel.y[0][-1] - panel.y[0][-4:].mean())
    assert found.shares.sum() == pytest.approx(100)


def test_what_two_parts_do_together_is_shared_equally() -> None:
    panel, network = panel_by_hand(), ByHand(together=0.1)
    found = contributions(network, panel, groups_of(panel, ()), H)
    np.testing.assert_allclose(found.start + found.values.sum(1), found.forecast)
    last, level = panel.y[0][-1], panel.y[0][-4:].mean()
    more = panel.known[0][80:, 0] - 0.5
    np.testing.assert_allclose(found.values[0, 1], EFFECTS[0] * more + 0.1 * (last + level) / 2 * more)


def test_with_many_covariates_some_orders_are_drawn_and_still_add_up() -> None:
    generator = np.random.default_rng(1)
    known = generator.normal(size=(30 + H, 9))

    class Many(ByHand):
        @property
        def config(self) -> NetworkConfig:
            return replace(super().config, covariates=Covariates((0.0,) * 9, (1.0,) * 9, (), ()))

        def forecast(self, panel: Panel, horizon: int) -> np.ndarray:
            ahead = np.stack(
                [k[len(y) : len(y) + horizon] for k, y in zip(panel.known, panel.y, strict=True)]
            )
            return (ahead @ np.arange(9.0))[..., None] * np.ones(3)

    panel = panel_of([100 + np.arange(30.0)], known=[known])
    found = contributions(Many(), panel, groups_of(panel, ()), H)
    np.testing.assert_allclose(found.values[0, 1:], (known[30:] * np.arange(9.0)).T, atol=1e-9)


def shop(days: int = 300, ahead: int = 14) -> polars.DataFrame:
    """Sales with a promotion that raises them by half, and with rain that does nothing."""
    generator = np.random.default_rng(0)
    steps = np.arange(days + ahead)
    promo = (generator.random(days + ahead) < 0.2).astype(int)
    promo[days : days + 3] = 1
    y = 100 * (1 + 0.1 * np.sin(2 * np.pi * steps / 7)) * (1 + 0.5 * promo)
    y *= np.exp(0.02 * generator.normal(size=days + ahead))
    return polars.DataFrame(
        {
            "ds": np.datetime64("2024-01-01", "D") + steps,
            "y": [float(value) if t < days else None for t, value in enumerate(y)],
            "promo": promo,
            "rain": generator.gamma(1.0, 2.0, days + ahead),
        }
    )


@pytest.fixture(scope="module")
def trained() -> Forecaster:
    settings = {"horizon": 14, "hidden_size": 16, "epochs": 12, "known": ["promo", "rain"]}
    return Forecaster(**settings, ensemble=False).fit(shop(), cutoffs=3)


def test_a_network_relies_on_the_covariate_with_an_effect(trained: Forecaster) -> None:
    found = {row["what"]: row for row in trained.influence().to_dicts()}
    assert set(found) == {PAST, "the calendar", "promo", "rain"}
    assert found["promo"]["error_growth"] > 100
    assert abs(found["rain"]["error_growth"]) < 10
    assert found["promo"]["share"] > 4 * found["rain"]["share"]
    assert sum(row["share"] for row in found.values()) == pytest.approx(100)
    assert np.isnan(found[PAST]["error_growth"])


def test_a_what_if_gives_back_the_effect(trained: Forecaster) -> None:
    found = trained.what_if(promo=0)
    before, after = found["GRU"].to_numpy(), found["GRU-changed"].to_numpy()
    assert found["promo-given"].to_list()[:3] == [1, 1, 1] and found["promo-changed"].sum() == 0
    on = found["promo-given"].to_numpy() == 1
    assert 1.25 < (before / after)[on].mean() < 2.0  # half more: nearer to that than to nothing or to double
    np.testing.assert_allclose((before / after)[~on], 1.0, atol=1e-6)
    np.testing.assert_allclose(found["difference"].to_numpy(), after - before)
    np.testing.assert_allclose(before, trained.predict()["GRU"].to_numpy())
