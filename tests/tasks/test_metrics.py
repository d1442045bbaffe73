"""Every metric against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cellwise.tasks.forecasting.metrics import (
    covered,
    interval_score,
    naive_scale,
    pinball,
    score,
    smape_terms,
    table_metrics,
)
from cellwise.tasks.forecasting.naive import seasonal_naive

NAN = float("nan")
QUANTILES = (0.1, 0.5, 0.9)


def bands(median: list[float], width: float) -> np.ndarray:
    return np.stack([np.array(median) - width, np.array(median), np.array(median) + width], axis=-1)


def test_one_series_by_hand() -> None:
    y = np.array([[[10.0, 20.0, 30.0, 40.0]]])
    forecast = bands([12.0, 19.0, 30.0, 36.0], 2.5)[None, None]
    scores = score(y, forecast, QUANTILES, np.array([[2.0]]), (80,))
    assert scores.overall["MAE"] == pytest.approx((2 + 1 + 0 + 4) / 4)
    assert scores.overall["RMSE"] == pytest.approx(math.sqrt((4 + 1 + 0 + 16) / 4))
    assert scores.overall["sMAPE"] == pytest.approx(200 * (2 / 22 + 1 / 39 + 0 + 4 / 76) / 4)
    assert scores.overall["MASE"] == pytest.approx(7 / 4 / 2)
    assert scores.overall["coverage 80"] == pytest.approx(75.0)  # 40 lies outside 33.5 to 38.5
    low, middle, high = 0.1 * 0.5, 0.5 * 2, 0.1 * 4.5  # of the first step: y = 10, quantiles 9.5, 12, 14.5
    first = (low + middle + high) / 3
    assert scores.by_horizon["pinball"][0] == pytest.approx(first)
    assert scores.by_horizon["MAE"].tolist() == pytest.approx([2, 1, 0, 4])


def test_series_count_alike_whatever_their_windows() -> None:
    y = np.array([[[1.0], [1.0]], [[1.0], [NAN]]])
    forecast = bands([2.0], 0.0)[None, None] * np.ones((2, 2, 1, 1))
    forecast[1] += 2.0  # errors of 1, 1 in the first series, 3 and unknown in the second
    scores = score(y, forecast, QUANTILES, np.ones((2, 2)), ())
    assert scores.by_series["MAE"].tolist() == [1.0, 3.0]
    assert scores.overall["MAE"] == 2.0
    assert scores.overall["RMSE"] == 2.0


def test_nan_is_left_out_everywhere() -> None:
    y = np.array([[[1.0, NAN, 3.0]]])
    forecast = bands([1.0, 100.0, 4.0], 0.5)[None, None]
    scores = score(y, forecast, QUANTILES, np.array([[1.0]]), (80,))
    assert scores.overall["MAE"] == 0.5
    assert scores.overall["coverage 80"] == 50.0
    assert math.isnan(scores.by_horizon["MAE"][1])


def test_smape_of_zeros_and_its_bound() -> None:
    assert smape_terms(np.array([0.0, 1.0, -5.0]), np.array([0.0, 0.0, 5.0])).tolist() == [0.0, 200.0, 200.0]


def test_pinball_weighs_the_two_sides() -> None:
    assert pinball(np.array([10.0]), np.array([[8.0]]), [0.9])[0] == pytest.approx(1.8)
    assert pinball(np.array([8.0]), np.array([[10.0]]), [0.9])[0] == pytest.approx(0.2)


def test_coverage_counts_the_edges() -> None:
    assert covered(np.array([1.0, 2.0, 3.1, NAN]), np.ones(4), np.full(4, 3.0))[:3].tolist() == [100, 100, 0]


def test_interval_score_by_hand() -> None:
    y = np.array([1.0, 2.0, 3.5, 0.5, NAN])
    found = interval_score(y, np.ones(5), np.full(5, 3.0), 90)  # half a unit outside costs 20 halves
    assert found[:4].tolist() == pytest.approx([2.0, 2.0, 12.0, 12.0])
    assert math.isnan(found[4])


def test_interval_score_is_that_of_its_two_quantiles() -> None:
    """2 / alpha times the pinball losses at alpha / 2 and 1 - alpha / 2 (Gneiting and Raftery 2007)."""
    generator = np.random.default_rng(0)
    y, ends = generator.normal(size=50), np.sort(generator.normal(size=(50, 2)), axis=-1)
    losses = 2 * pinball(y, ends, (0.1, 0.9))
    assert interval_score(y, ends[:, 0], ends[:, 1], 80) == pytest.approx(losses * 2 / 0.2)


def test_true_quantiles_score_best() -> None:
    y = np.random.default_rng(1).normal(size=100_000)
    true = 1.2816
    means = {
        z: float(interval_score(y, np.full_like(y, -z), np.full_like(y, z), 80).mean())
        for z in (0.9, true, 1.7)
    }
    assert min(means, key=lambda z: means[z]) == true


def test_width_and_scaled_metrics_by_hand() -> None:
    y = np.array([[[10.0, NAN]], [[100.0, 110.0]]])
    forecast = np.stack([bands([10.0, 10.0], 1.0)[None], bands([100.0, 100.0], 5.0)[None]])
    scores = score(y, forecast, QUANTILES, np.array([[2.0], [NAN]]), (80,))
    assert scores.by_series["width 80"].tolist() == [2.0, 10.0]
    assert scores.by_series["interval 80"].tolist() == pytest.approx([2.0, (10 + 10 + 5 * 10) / 2])
    assert scores.overall["scaled width 80"] == 1.0  # of the second series no scale is known
    assert scores.overall["scaled interval 80"] == 1.0
    assert math.isnan(score(y[:1], forecast[:1], QUANTILES, np.ones((1, 1)), (80,)).by_horizon["width 80"][1])


def test_the_metrics_of_a_table_are_metrics_and_keys_stay() -> None:
    y, forecast = np.ones((1, 1, 1)), bands([1.0], 1.0)[None, None]
    found = list(score(y, forecast, QUANTILES, np.ones((1, 1)), (80,)).overall)
    assert set(table_metrics((80,))) <= set(found)
    assert found[:6] == ["MAE", "RMSE", "sMAPE", "MASE", "pinball", "coverage 80"]  # as in 0.2.0


def test_naive_scale() -> None:
    assert naive_scale(np.array([1.0, 5.0, 2.0, 9.0]), 2) == pytest.approx((1 + 4) / 2)
    assert naive_scale(np.array([1.0, NAN, 2.0, 9.0]), 2) == pytest.approx(1.0)
    assert naive_scale(np.array([1.0, 4.0]), 12) == 3.0  # shorter than a season: plain changes
    assert math.isnan(naive_scale(np.array([3.0, 3.0, 3.0]), 1))


def test_seasonal_naive_repeats_the_season_around_missing_values() -> None:
    y = np.array([1.0, 2.0, 3.0, 4.0, NAN, 6.0])
    assert seasonal_naive(y, 5, 3, [0.5])[:, 0].tolist() == [4.0, 2.0, 6.0, 4.0, 2.0]


def test_seasonal_naive_bands_grow_by_season() -> None:
    y = np.array([0.0, 0.0, 3.0, 3.0, 0.0, 0.0])  # seasonal changes are +3, +3, -3, -3
    forecast = seasonal_naive(y, 4, 2, [0.05, 0.5, 0.95])
    half = (forecast[:, 2] - forecast[:, 0]) / 2
    assert half.tolist() == pytest.approx([3 * 1.6448536] * 2 + [3 * 1.6448536 * math.sqrt(2)] * 2)


def test_seasonal_naive_of_one_value() -> None:
    assert seasonal_naive(np.array([7.0]), 2, 12, [0.1, 0.5, 0.9]).tolist() == [[7.0] * 3] * 2
