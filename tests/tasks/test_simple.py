"""Simple methods against figures by hand, the formulas of the textbook, and statsmodels where it is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.tasks.panels import panel_of

from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.simple import (
    drift,
    method_of,
    plausible_methods,
    seasonal_drift,
    seasonal_mean,
    seasonless_mean,
    simple_methods,
)
from cellwise.tasks.forecasting.theta import ALPHAS, season_indices, smooth_with_drift, theta

NAN = np.nan
NORMAL = 1.6448536269514722  # 95 % of a normal distribution lie below so many standard deviations
QUANTILES = (0.05, 0.5, 0.95)


def deviation(forecast: np.ndarray) -> np.ndarray:
    """The standard deviations (H,) that bands (H, 3) were made of."""
    assert np.allclose(forecast[:, 2] - forecast[:, 1], forecast[:, 1] - forecast[:, 0])
    return (forecast[:, 2] - forecast[:, 1]) / NORMAL


def test_the_mean_has_the_textbook_s_bands() -> None:
    """FPP3, section 5.5: sigma sqrt(1 + 1 / T)."""
    forecast = seasonless_mean(np.array([1.0, NAN, 2.0, 6.0]), 2, 1, QUANTILES)
    assert forecast[:, 1].tolist() == [3.0, 3.0]
    assert deviation(forecast) == pytest.approx(np.sqrt(7) * np.sqrt(4 / 3))


def test_drift_is_the_line_through_the_ends() -> None:
    """FPP3: y_T + h (y_T - y_1) / (T - 1), and sigma sqrt(h (1 + h / (T - 1)))."""
    y = np.array([2.0, 5.0, 4.0, 8.0])
    forecast = drift(y, 3, 1, QUANTILES)
    assert forecast[:, 1] == pytest.approx([10.0, 12.0, 14.0])
    sigma = np.sqrt(((np.diff(y) - 2) ** 2).sum() / 2)
    ahead = np.array([1, 2, 3])
    assert deviation(forecast) == pytest.approx(sigma * np.sqrt(ahead * (1 + ahead / 3)))
    gappy = drift(np.array([2.0, NAN, 4.0, 8.0, NAN]), 1, 1, (0.5,))
    assert gappy[0, 0] == pytest.approx(8 + 2 * 2.0)  # one step is missing before the forecast
    assert drift(np.array([3.0]), 2, 1, QUANTILES).tolist() == [[3.0] * 3] * 2


def test_the_mean_of_the_last_four_seasons() -> None:
    seasons = np.array([[100.0, 200.0], [1.0, 10.0], [2.0, 20.0], [3.0, NAN], [6.0, 30.0]])
    forecast = seasonal_mean(seasons.ravel(), 3, 2, (0.5,))
    assert forecast[:, 0].tolist() == [3.0, 20.0, 3.0]
    short = seasonal_mean(np.array([1.0, 2.0, 3.0, 4.0]), 2, 2, (0.5,))
    assert short[:, 0].tolist() == [3.0, 4.0]


def test_seasons_move_on_by_their_mean_change() -> None:
    y = np.array([1.0, 10.0, 3.0, 11.0, 4.0, 16.0])
    change = np.mean([2.0, 1.0, 1.0, 5.0])
    forecast = seasonal_drift(y, 3, 2, QUANTILES)
    assert forecast[:, 1] == pytest.approx([4 + change, 16 + change, 4 + 2 * change])
    sigma = np.array([2.0, 1.0, 1.0, 5.0]).std(ddof=1)
    ahead = np.array([1, 1, 2])  # seasons
    assert deviation(forecast) == pytest.approx(sigma * np.sqrt(ahead * (1 + ahead / 2)))


def test_smoothing_by_hand() -> None:
    """Every weight and first level is as good as the search says: none tried by hand is better."""
    y = np.array([5.0, 7.0, 4.0, 8.0, 9.0, 7.0])

    def squares(alpha: float, level: float) -> tuple[float, float]:
        total = 0.0
        for value in y:
            total += (value - level) ** 2
            level += alpha * (value - level)
        return total, level

    tried = {(a, f): squares(a, f) for a in ALPHAS for f in np.arange(3.0, 9.0, 0.01)}
    (alpha, _), (total, level) = min(tried.items(), key=lambda each: each[1][0])
    slope = np.polyfit(np.arange(6), y, 1)[0]
    point, deviations = smooth_with_drift(y[None], 3)
    ahead = np.arange(3)
    assert point[0] == pytest.approx(level + slope / 2 * (ahead + (1 - (1 - alpha) ** 6) / alpha), abs=0.01)
    assert deviations[0] == pytest.approx(np.sqrt(total / 5 * (1 + ahead * alpha**2)), rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_theta_agrees_with_statsmodels(seed: int) -> None:
    module = pytest.importorskip("statsmodels.tsa.forecasting.theta")
    random = np.random.default_rng(seed)
    y = 100 + random.normal(size=80).cumsum() + 0.3 * seed * np.arange(80) + 3 * random.normal(size=80)
    other = np.asarray(module.ThetaModel(y, deseasonalize=False).fit().forecast(12))
    own, _ = theta([y], 12, ())
    assert own[0] == pytest.approx(other, rel=2e-3)  # its weight is not one of ALPHAS


def test_a_gap_leaves_the_level_and_many_series_do_not_mix() -> None:
    random = np.random.default_rng(0)
    one = random.normal(size=30) + 10
    gappy = np.insert(one, 15, NAN)
    alone, _ = smooth_with_drift(one[None], 1)
    with_gap, _ = smooth_with_drift(gappy[None], 1)
    assert with_gap == pytest.approx(alone, abs=0.05)  # the slope alone has moved a little
    series = [one, 1000 * one[:20], random.normal(size=50), np.array([4.0]), np.array([NAN, 2.0, NAN])]
    together, spread = theta(series, 4, (4,))
    for y, point, deviations in zip(series, together, spread, strict=True):
        single = theta([y], 4, (4,))
        assert point == pytest.approx(single[0][0]) and deviations == pytest.approx(single[1][0])
    assert together[3].tolist() == [4.0] * 4 and together[4].tolist() == [2.0] * 4


def test_theta_finds_season_and_slope_without_noise() -> None:
    steps = np.arange(60)
    additive = np.resize([3.0, -1.0, -2.0], 63) * 10
    point, _ = theta([additive[:60]], 3, (3,))
    assert point[0] == pytest.approx(additive[60:], abs=0.1)  # drawn to none by a little
    share = np.resize([1.2, 0.8, 1.0], 63)
    growing = (100 + np.arange(63)) * share
    point, _ = theta([growing[:60]], 3, (3,))
    assert point[0] == pytest.approx(growing[60:], rel=0.02)  # half of the slope, a level that lags by none
    assert theta([100.0 + steps], 2, ())[0][0] == pytest.approx([159.5 + 0.5, 160.5], abs=1.1)


def test_noise_is_no_season() -> None:
    noise = np.random.default_rng(0).normal(size=(50, 120))
    assert np.abs(season_indices(noise, 12)).mean() < 0.1  # means of ten values: 0.25
    strong = season_indices(noise / 10 + np.resize(np.arange(12.0), 120), 12)
    assert strong.mean(axis=0) == pytest.approx(np.arange(12) - 5.5, abs=0.1)


def test_each_plausible_season_has_its_methods() -> None:
    names = [method.name for method in plausible_methods((7, 365))]
    assert names[:2] == ["SeasonalNaive", "SeasonalNaive(364)"]  # of whole weeks
    assert {"SeasonalMean(7)", "SeasonalDrift(364)", "Naive", "Mean", "Drift", "Theta"} <= set(names)
    assert [m.name for m in plausible_methods((1,))] == ["SeasonalNaive", "Mean", "Drift", "Theta"]
    with pytest.raises(ValueError, match="no simple method 'SeasonalNaive"):
        method_of("SeasonalNaive(168)", (24,))
    hours = panel_of([np.zeros(400)])
    hours = replace(hours, frequency=parse_frequency("h"))
    assert "SeasonalNaive(168)" in [method.name for method in simple_methods(hours)]
    assert "SeasonalNaive(168)" not in [method.name for method in simple_methods(hours.cut([335]))]


def test_every_method_forecasts_whatever_there_is() -> None:
    """Counts, gaps, constants, single values: numbers in order, none below zero where none was."""
    random = np.random.default_rng(0)
    series = [
        random.poisson(0.2, 60).astype(float),
        np.where(random.random(60) < 0.3, NAN, random.normal(size=60)),
        np.full(30, 7.0),
        np.array([1.0]),
        np.array([1.0, NAN, 3.0]),
        np.append(random.random(40) * 1e9, [NAN] * 9),
        np.zeros(20),
    ]
    panel = panel_of(series, season_length=4)
    for method in simple_methods(panel):
        made = method.forecast(panel, 9, QUANTILES)
        assert made.shape == (len(series), 9, 3) and np.isfinite(made).all(), method.name
        assert (np.diff(made, axis=-1) >= 0).all(), method.name
        assert (made[[0, 2, 3, 4, 5, 6]] >= 0).all() and (made[1] < 0).any(), method.name
        assert method.forecast(panel.select([]), 9, QUANTILES).shape == (0, 9, 3)
