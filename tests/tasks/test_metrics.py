"""Every metric against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cellwise.tasks.forecasting.metrics import covered, naive_scale, pinball, score, smape_terms
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
