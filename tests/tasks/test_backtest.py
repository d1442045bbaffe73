"""Backtests are honest: a forecast knows nothing of what comes after its cutoff, and training nothing of
the test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cellwise.tasks.forecasting.backtest import cutoff_indices, rolling_forecasts, windows_at
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.forecasting.objective import training_part
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.splits import shortest_length, split


def panel_of(*lengths: int) -> Panel:
    frequency = parse_frequency("D")
    times = [frequency.times(np.datetime64("2024-01-01", "us"), np.arange(n)) for n in lengths]
    return Panel(
        ids=tuple(f"s{i}" for i in range(len(lengths))),
        frequency=frequency,
        times=tuple(times),
        y=tuple(np.arange(n, dtype=float) + 100 * i for i, n in enumerate(lengths)),
        known=tuple(np.arange(n + 5, dtype=float)[:, None] for n in lengths),
        past=tuple(-np.arange(n, dtype=float)[:, None] for n in lengths),
        known_names=("k",),
        past_names=("p",),
    )


def test_cutoffs_count_back_from_the_end() -> None:
    assert cutoff_indices(np.array([100, 50]), 3, 10, 7, 40).tolist() == [[73, 83, 93], [-1, -1, 43]]


def test_a_window_sees_the_past_and_the_known_future_only() -> None:
    cut, truth, windows = windows_at(panel_of(30, 20), np.array([[10, 20], [-1, 15]]), 4)
    assert windows.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert [y[-1] for y in cut.y] == [9, 19, 114]
    assert [len(known) for known in cut.known] == [14, 24, 19]
    assert [len(past) for past in cut.past] == [10, 20, 15]
    assert truth.tolist() == [[10, 11, 12, 13], [20, 21, 22, 23], [115, 116, 117, 118]]


def test_the_model_is_given_nothing_after_the_cutoff() -> None:
    def last_value(seen: Panel, horizon: int) -> np.ndarray:
        return np.array([np.full((horizon, 3), y[-1]) for y in seen.y])

    panel = panel_of(40)
    cutoffs = np.array([[20, 30]])
    options = {"name": "LAST", "quantiles": (0.1, 0.5, 0.9), "levels": (80,)}
    before = rolling_forecasts(last_value, panel, cutoffs, 5, **options)
    later = replace(panel, y=(np.where(np.arange(40) < 20, panel.y[0], 1e6),))
    after = rolling_forecasts(last_value, later, cutoffs, 5, **options)
    for name in ("LAST", NAIVE_NAME):
        assert (before.forecasts[name][0, 0] == after.forecasts[name][0, 0]).all()
    assert before.scale[0, 0] == after.scale[0, 0]
    assert (before.y[0, 0] == [20, 21, 22, 23, 24]).all()
    assert before.scores()["LAST"].overall["MAE"] == pytest.approx(3.0)
    assert before.times(0, 1)[0] == np.datetime64("2024-01-31", "us")


def test_training_ends_before_validation_and_validation_before_the_test() -> None:
    panel = panel_of(200, 150)
    parts = split(panel, 10, cutoffs=3, step=10, validation=2)
    assert parts.test.tolist() == [[170, 180, 190], [120, 130, 140]]
    assert parts.validation.tolist() == [[150, 160], [100, 110]]
    assert parts.train.tolist() == [150, 100]
    seen = training_part(panel, parts, 10)
    assert [y[-1] for y in seen.y] == [149, 199]
    assert [len(known) for known in seen.known] == [150, 100]
    assert parts.notes == (
        "the last 30 days were kept from training; the backtest measures them",
        "the 20 days before that were held out from training for validation in 2 of 2 series",
    )


def test_series_too_short_to_hold_out_train_whole_and_shorter_ones_not_at_all() -> None:
    panel = panel_of(200, 20, 5)
    parts = split(panel, 10, cutoffs=0, step=10, validation=1)
    assert parts.train.tolist() == [190, 20, 5]
    assert training_part(panel, parts, 10).ids == ("s0", "s1")
    assert any("are forecast but not trained on ('s2')" in note for note in parts.notes)


def test_cutoffs_that_do_not_fit_are_said() -> None:
    parts = split(panel_of(60), 10, cutoffs=9, step=10, validation=0)
    assert int((parts.test >= 0).sum()) == 4
    assert "the data is long enough for 4 of the 9 cutoffs only" in parts.notes


def test_no_series_long_enough() -> None:
    need = shortest_length(10)
    with pytest.raises(
        SeriesTooShortError, match=rf"series 's0' has 12 values, but a horizon of 10 needs at least {need}"
    ):
        split(panel_of(12), 10, cutoffs=0, step=10, validation=None)
    with pytest.raises(SeriesTooShortError, match="a horizon of 10 and a test of one horizon needs at least"):
        split(panel_of(20), 10, cutoffs=2, step=10, validation=None)


def test_validation_windows_end_where_the_series_does_and_span_a_share_of_it() -> None:
    for lengths in ([200] * 30, [200], [5000]):
        held = split(panel_of(*lengths), 10, cutoffs=0, step=10, validation=None).validation
        assert (held[:, -1] == lengths[0] - 10).all() and (held[:, 0] >= 0.7 * lengths[0]).all()
        assert (np.diff(held, axis=1) > 0).all() and held.shape[1] > 1
    assert split(panel_of(50), 10, cutoffs=0, step=10, validation=None).validation.max() == 40


def test_the_longest_of_several_short_series_is_named_and_three_of_those_left_out() -> None:
    with pytest.raises(SeriesTooShortError, match="the longest series, 's1', has 12 values"):
        split(panel_of(5, 12, 3), 10, cutoffs=0, step=10, validation=None)
    notes = split(panel_of(200, 5, 5, 5, 5), 10, cutoffs=0, step=10, validation=0).notes
    assert any("4 series with fewer than" in note and "('s1', 's2', 's3', ...)" in note for note in notes)
    assert "nothing is held out for validation, so nothing stops training early" in notes
