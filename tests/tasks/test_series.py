"""A series made ready: learned units there and back, gaps closed from the past alone."""

import numpy as np
import pytest

from cellwise.tasks.forecasting.series import fill, prepare, relative_step

MIXED = np.array([3.0, -1.0, 0.0, 2.5, -4.0])


def test_positive_series_are_learned_as_logarithms():
    series = prepare(np.array([1.0, 10.0, 100.0]), 12, 0.1)
    assert series.logarithmic
    np.testing.assert_allclose(series.values, np.log([1.0, 10.0, 100.0]))
    np.testing.assert_allclose(series.restore(series.values), [1.0, 10.0, 100.0])


@pytest.mark.parametrize("y", [[5.0, 0.0, 3.0], [-5.0, 2.0, 3.0], [100.0, 100.0, 0.5]])
def test_zeros_negatives_and_near_zeros_are_learned_as_they_are(y):
    series = prepare(np.array(y), 12, 0.1)
    assert not series.logarithmic
    np.testing.assert_allclose(series.restore(series.values), y)
    np.testing.assert_allclose(np.abs(np.diff(series.values)).mean(), 1.0)


def test_linear_units_do_not_depend_on_scale_or_on_where_zero_lies():
    plain, moved = prepare(MIXED, 1, 0.1), prepare(1000 * MIXED - 7000, 1, 0.1)
    np.testing.assert_allclose(plain.values - plain.values[0], moved.values - moved.values[0])


def test_only_a_series_without_negative_values_is_kept_from_going_below_zero():
    assert prepare(np.array([0.0, 2.0, 4.0]), 1, 0.1).restore(np.array([-1.0])) == [0.0]
    assert prepare(MIXED, 1, 0.1).restore(np.array([-1.0])) < 0


def test_a_series_of_zeros_stays_zero_whatever_is_learned():
    assert prepare(np.zeros(5), 1, 0.1).restore(np.array([3.0, -3.0])).tolist() == [0.0, 0.0]


def test_a_gap_takes_the_step_of_a_season_ago():
    values = np.array([0.0, 5.0, 1.0, 10.0, 15.0, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(fill(values, 3)[5:], [11.0, 20.0, 25.0])


def test_a_gap_without_a_season_repeats_the_last_value():
    np.testing.assert_allclose(fill(np.array([4.0, np.nan, np.nan, 7.0]), 1), [4.0, 4.0, 4.0, 7.0])


def test_a_long_gap_does_not_drift():
    season = np.sin(np.arange(60) * 2 * np.pi / 12)
    values = np.where(np.arange(60) < 24, season, np.nan)
    np.testing.assert_allclose(fill(values, 12), season, atol=1e-12)


def test_filling_looks_at_the_past_only():
    values = np.array([1.0, 2.0, np.nan, 4.0, np.nan, 6.0])
    changed = values.copy()
    changed[5] = 99.0
    np.testing.assert_array_equal(fill(values, 2)[:5], fill(changed, 2)[:5])


def test_leading_gaps_are_dropped_and_counted():
    series = prepare(np.array([np.nan, np.nan, 1.0, 2.0]), 1, 0.1)
    assert series.start == 2
    assert len(series.values) == 2


def test_tail_and_extend():
    series = prepare(np.array([1.0, 2.0, 4.0]), 1, 0.1)
    longer = series.tail(2).extend(np.log([8.0]))
    np.testing.assert_allclose(longer.restore(longer.filled), [2.0, 4.0, 8.0])


def test_relative_step():
    assert relative_step(np.array([10.0, np.nan, 12.0, 8.0])) == pytest.approx(0.3)
    assert np.isnan(relative_step(np.array([1.0])))
    assert np.isnan(relative_step(np.zeros(4)))
