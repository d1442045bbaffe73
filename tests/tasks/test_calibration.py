"""Calibrated bands: coverage of what is drawn from known distributions, order, few windows, and what a file may say."""

from __future__ import annotations

import json
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from cellwise.tasks.forecasting.calibration import Calibration

QUANTILES = (0.05, 0.1, 0.5, 0.9, 0.95)
Z = np.array([NormalDist().inv_cdf(q) for q in QUANTILES])


def forecasts_of(median: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Normal quantiles (..., Q) around a median with a spread."""
    return median[..., None] + spread[..., None] * Z


def coverage(truth: np.ndarray, forecasts: np.ndarray, low: int) -> float:
    """Share of the truth within the band from quantile `low` on, in percent."""
    inside = (forecasts[..., low] <= truth) & (truth <= forecasts[..., -1 - low])
    return 100 * float(inside.mean())


def test_heteroscedastic_bands_that_are_too_narrow_cover_what_they_promise() -> None:
    generator = np.random.default_rng(0)
    spread = np.exp(generator.normal(size=(4000, 6))) * np.sqrt(np.arange(1, 7))
    truth = spread * generator.normal(size=spread.shape)
    made = forecasts_of(np.zeros_like(spread), spread / 2)
    fitted = Calibration.fit(made[:200], truth[:200], QUANTILES)
    after = fitted.apply(made[200:])
    assert coverage(truth[200:], made[200:], 1) < 55
    assert coverage(truth[200:], after, 1) == pytest.approx(80, abs=2)
    assert coverage(truth[200:], after, 0) == pytest.approx(90, abs=1.5)


def test_a_trip_through_json() -> None:
    generator = np.random.default_rng(1)
    made = forecasts_of(np.zeros((20, 3)), np.ones((20, 3)))
    fitted = Calibration.fit(made, 3 * generator.normal(size=(20, 3)), QUANTILES, series=["a"] * 20)
    again = Calibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert (again.apply(made, series=["a"] * 20) == fitted.apply(made, series=["a"] * 20)).all()
    assert again.note == fitted.note


@pytest.mark.parametrize(
    "change",
    [
        {"quantiles": [0.1, 0.9]},
        {"quantiles": [0.9, 0.5, 0.1]},
        {"quantiles": "abc"},
        {"factors": [[1.0, 1.0]]},
        {"factors": []},
        {"factors": [[1.0, 2.0, 1.0]]},
        {"factors": [[-1.0, 1.0, 1.0]]},
        {"factors": [[float("nan"), 1.0, 1.0]]},
        {"factors": [[1e9, 1.0, 1.0]]},
        {"factors": [[True, 1.0, 1.0]]},
        {"factors": [["1", 1.0, 1.0]]},
        {"factors": [[1.0, 1.0, 1.0], [1.0]]},
        {"series": {"a": 0.0}},
        {"series": [1.0]},
        {"note": 3},
        {"note": "two\nlines"},
        {"note": "x" * 100_000},
    ],
)
def test_what_to_dict_could_not_have_written_is_refused(change: dict[str, Any]) -> None:
    good = Calibration.none((0.1, 0.5, 0.9), "nothing").to_dict()
    Calibration.from_dict(good)
    with pytest.raises((ValueError, TypeError)):
        Calibration.from_dict(good | change)
