"""Calibrated bands: coverage of what is drawn from known distributions, order, few windows, and what a file may say."""

from __future__ import annotations

import json
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from cellwise.tasks.forecasting import band_factors
from cellwise.tasks.forecasting.calibration import Calibration, windows_for

QUANTILES = (0.05, 0.1, 0.5, 0.9, 0.95)
Z = np.array([NormalDist().inv_cdf(q) for q in QUANTILES])


def forecasts_of(median: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Normal quantiles (..., Q) around a median with a spread."""
    return median[..., None] + spread[..., None] * Z


def coverage(truth: np.ndarray, forecasts: np.ndarray, low: int) -> float:
    """Share of the truth within the band from quantile `low` on, in percent."""
    inside = (forecasts[..., low] <= truth) & (truth <= forecasts[..., -1 - low])
    return 100 * float(inside.mean())


def after_calibration(
    generator: np.random.Generator, windows: int, tries: int, *, shared: float, factor: float = 0.5
) -> tuple[float, float]:
    """Mean coverage of a new window at 80 and 90 %, and what it is of: errors of a window have a part in common."""
    found = []
    for _ in range(tries):
        common = generator.normal(size=(windows + 50, 1))
        errors = np.sqrt(shared) * common + np.sqrt(1 - shared) * generator.normal(size=(windows + 50, 8))
        made = forecasts_of(np.zeros_like(errors), np.full_like(errors, factor))
        fitted = Calibration.fit(made[:windows], errors[:windows], QUANTILES)
        after = fitted.apply(made[windows:])
        found.append([coverage(errors[windows:], after, low) for low in (1, 0)])
    inner, outer = np.mean(found, axis=0)
    return float(inner), float(outer)


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


def test_bands_that_are_too_wide_are_narrowed() -> None:
    generator = np.random.default_rng(8)
    truth = generator.normal(size=(300, 6))
    made = forecasts_of(np.zeros_like(truth), np.full_like(truth, 2.0))
    fitted = Calibration.fit(made, truth, QUANTILES)
    assert fitted.factors[:, [0, 1, 3, 4]] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("tail", ["skewed", "heavy"])
def test_errors_that_are_not_normal_are_covered(tail: str) -> None:
    generator = np.random.default_rng(1)
    shape = (4000, 5)
    truth = (
        generator.exponential(size=shape) - 0.69 if tail == "skewed" else generator.standard_t(2, size=shape)
    )
    made = forecasts_of(np.zeros(shape), np.full(shape, 0.4))
    after = Calibration.fit(made[:300], truth[:300], QUANTILES).apply(made[300:])
    assert coverage(truth[300:], after, 1) == pytest.approx(80, abs=2)
    assert coverage(truth[300:], after, 0) == pytest.approx(90, abs=1.5)


@pytest.mark.parametrize(("windows", "within"), [(1, 6.0), (3, 5.0), (8, 3.5), (40, 2.0)])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_exchangeable_windows_are_covered_whatever_their_number(
    windows: int, within: float, shared: float
) -> None:
    """A conformal quantile of n exchangeable scores covers between level and level + 1 / (n + 1) (Vovk et al. 2005).
    With what is assumed of few windows this does not hold to the letter, but nearly."""
    inner, outer = after_calibration(np.random.default_rng(windows), windows, 300, shared=shared)
    assert inner == pytest.approx(80, abs=within)
    assert outer == pytest.approx(90, abs=within)


def test_the_fewer_windows_the_wider_the_bands() -> None:
    """Of the same errors: how wrong their size may be is added."""
    errors = np.array([[-1.5, 0.4, 1.1, -0.2], [0.7, -0.9, 0.3, 1.6], [-0.6, 0.1, -1.2, 0.8]])
    made = forecasts_of(np.zeros((3, 4)), np.ones((3, 4)))
    few = Calibration.fit(made, errors, QUANTILES).factors
    many = Calibration.fit(np.tile(made, (30, 1, 1)), np.tile(errors, (30, 1)), QUANTILES).factors
    assert (few[:, 0] > 1.1 * many[:, 0]).all()


def test_narrow_bands_beside_a_large_naive_error_are_doubted_while_windows_are_few() -> None:
    made = forecasts_of(np.zeros((1, 4)), np.full((1, 4), 0.1))
    truth = np.array([[0.05, -0.08, 0.1, -0.02]])
    usual = Calibration.fit(made, truth, QUANTILES, scale=np.array([0.14])).factors
    doubted = Calibration.fit(made, truth, QUANTILES, scale=np.array([1.0])).factors
    assert (doubted[:, 0] > 1.5 * usual[:, 0]).all()
    many = (np.tile(made, (200, 1, 1)), np.random.default_rng(2).normal(size=(200, 4)) * 0.1, QUANTILES)
    assert Calibration.fit(*many, scale=np.ones(200)).factors[:, 0] == pytest.approx(1.0, abs=0.15)


def test_windows_that_overlap_count_once() -> None:
    generator = np.random.default_rng(3)
    errors = generator.normal(size=(6, 4))
    made = forecasts_of(np.zeros((6, 4)), np.full((6, 4), 0.5))
    once = Calibration.fit(made, errors, QUANTILES, cutoffs=4 * np.arange(6))
    again = (np.repeat(made, 2, axis=0), np.repeat(errors, 2, axis=0), QUANTILES)
    same = Calibration.fit(*again, cutoffs=np.repeat(4 * np.arange(6), 2))
    apart = Calibration.fit(*again, cutoffs=4 * np.arange(12))
    assert abs(same.factors[0, 0] / once.factors[0, 0] - 1) < abs(
        apart.factors[0, 0] / once.factors[0, 0] - 1
    )
    others = Calibration.fit(*again, cutoffs=np.repeat(4 * np.arange(6), 2), series=["a", "b"] * 6)
    assert others.factors[0, 0] == pytest.approx(apart.factors[0, 0])  # of two series, nothing overlaps


def test_errors_that_are_alike_within_a_window_count_as_fewer() -> None:
    generator = np.random.default_rng(9)
    errors = generator.normal(size=96)
    alike = np.sort(np.abs(errors)).reshape(12, 8)  # each window has errors of one size
    apart = generator.permutation(np.abs(errors)).reshape(12, 8)
    made = forecasts_of(np.zeros((12, 8)), np.ones((12, 8)))
    few = Calibration.fit(made, alike, QUANTILES).factors[:, 1].mean()
    many = Calibration.fit(made, apart, QUANTILES).factors[:, 1].mean()
    assert few > 1.05 * many


def test_factors_grow_along_the_horizon_where_errors_do() -> None:
    generator = np.random.default_rng(4)
    growing = generator.normal(size=(200, 10)) * (1 + np.arange(10)) ** 0.3
    made = forecasts_of(np.zeros_like(growing), np.ones_like(growing))
    factors = Calibration.fit(made, growing, QUANTILES).factors[:, 0]
    assert (np.diff(factors) > 0).all()
    assert factors[-1] / factors[0] == pytest.approx(10**0.3, rel=0.2)
    few = Calibration.fit(made[:2], growing[:2], QUANTILES).factors[:, 0]
    assert few.max() / few.min() < 1.3  # two windows do not say how errors grow


def test_a_longer_horizon_has_the_last_factor() -> None:
    factors = np.array([[2.0, 1.0, 2.0], [3.0, 1.0, 3.0]])
    made = np.tile(np.array([-1.0, 0.0, 1.0]), (1, 4, 1))
    after = Calibration((0.1, 0.5, 0.9), factors, "").apply(made)
    assert after[0, :, 2].tolist() == [2.0, 3.0, 3.0, 3.0]


def test_series_with_many_windows_have_factors_of_their_own() -> None:
    generator = np.random.default_rng(5)
    names = ["calm", "wild"] * 200
    size = np.where(np.array(names) == "wild", 3.0, 1.0)[:, None]
    errors = size * generator.normal(size=(400, 3))
    made = forecasts_of(np.zeros_like(errors), np.ones_like(errors))
    fitted = Calibration.fit(made, errors, QUANTILES, series=names)
    after = fitted.apply(made, series=names)
    for name in ("calm", "wild"):
        own = np.array(names) == name
        assert coverage(errors[own], after[own], 1) == pytest.approx(80, abs=6)
    unseen = fitted.apply(made[:1], series=["new"])
    assert after[0, 0, -1] < unseen[0, 0, -1] < after[1, 0, -1]
    assert not Calibration.fit(made[:4], errors[:4], QUANTILES, series=names[:4]).series


@pytest.mark.parametrize(("times", "power"), [(1, 1 / 3), (4, 2 / 3)])
def test_many_series_at_few_times_are_followed_in_part(
    times: int, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty series in one hard time say less than forty hard times."""
    errors = 3 * np.random.default_rng(5).normal(size=(40 * times, 6))
    made = forecasts_of(np.zeros_like(errors), np.ones_like(errors))
    names = [f"s{i % 40}" for i in range(len(errors))]
    found = Calibration.fit(made, errors, QUANTILES, series=names)
    monkeypatch.setattr(band_factors, "MANY_SERIES", 41)
    whole = Calibration.fit(made, errors, QUANTILES, series=names)
    assert (whole.factors[:, [0, 1, 3, 4]] > 2).all()
    assert np.log(found.factors) == pytest.approx(power * np.log(whole.factors))


def test_order_and_median_stay_and_nothing_passes_zero() -> None:
    generator = np.random.default_rng(6)
    made = np.sort(generator.gamma(2.0, size=(50, 7, 5)), axis=-1)
    truth = generator.gamma(2.0, size=(50, 7)) * generator.choice([0.0, 1.0, 5.0], size=(50, 7))
    fitted = Calibration.fit(made, truth, QUANTILES, nonnegative=True)
    for factors in (
        fitted.factors,
        np.array([[0.3, 4.0, 1.0, 6.0, 0.2]]),
    ):  # also where an inner one is larger
        after = Calibration(QUANTILES, factors, "").apply(made, nonnegative=True)
        assert (np.diff(after, axis=-1) >= 0).all()
        assert (after[..., 2] == made[..., 2]).all()
        assert (after > 0).all()
    free = Calibration(QUANTILES, np.array([[5.0, 5.0, 1.0, 5.0, 5.0]]), "").apply(made)
    assert (free < 0).any()
    zeros = np.tile(np.array([0.0, 0.0, 1.0, 2.0, 3.0]), (1, 1, 1))
    assert (Calibration(QUANTILES, np.full((1, 5), 1.0), "").apply(zeros, nonnegative=True) == zeros).all()
    wide = Calibration(QUANTILES, np.array([[3.0, 3.0, 1.0, 3.0, 3.0]]), "").apply(zeros, nonnegative=True)
    assert wide[0, 0].tolist() == [0.0, 0.0, 1.0, 4.0, 7.0]


def test_what_is_missing_or_without_width_does_no_harm() -> None:
    made = forecasts_of(np.zeros((5, 3)), np.ones((5, 3)))
    made[0] = 0.0  # no width, and right
    made[1] = 1.0  # no width, and wrong
    truth = np.zeros((5, 3))
    truth[2], truth[3, 1] = np.nan, np.nan
    fitted = Calibration.fit(made, truth, QUANTILES)
    assert np.isfinite(fitted.apply(made)).all()
    assert "4 windows" in fitted.note


@pytest.mark.parametrize("windows", [0, 2])
def test_without_windows_nothing_changes_and_the_note_says_so(windows: int) -> None:
    made = forecasts_of(np.zeros((windows, 3)), np.ones((windows, 3)))
    fitted = Calibration.fit(made, np.full((windows, 3), np.nan), QUANTILES)
    assert (fitted.apply(made) == made).all()
    assert fitted.note == "the bands are not calibrated: too short to hold anything out"


@pytest.mark.parametrize("length", [20, 100, 1000, 50_000])
@pytest.mark.parametrize("series", [1, 4, 2000])
@pytest.mark.parametrize("horizon", [1, 6, 48])
def test_windows_take_a_modest_share(length: int, series: int, horizon: int) -> None:
    count, step = windows_for(np.full(series, length), horizon)
    assert count >= 1
    assert step >= 1
    assert count == 1 or horizon + step * (count - 1) <= max(0.31 * length, horizon)
    assert count == 1 or count * series <= 6000


def test_many_short_series_spare_one_horizon_each() -> None:
    assert windows_for(np.full(1000, 90), 18) == (1, 9)
    assert windows_for(np.full(4, 90), 18)[0] == 2


def test_long_series_have_many_windows_over_a_long_time() -> None:
    count, step = windows_for(np.array([20_000]), 24)
    assert count == 48
    assert 24 + 47 * step == pytest.approx(3000, rel=0.02)


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
        {"factors": [[10**400, 1.0, 1.0]]},
        {"factors": [[2.0, 2.0, 2.0]]},
        {"factors": "1"},
        {"quantiles": []},
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
