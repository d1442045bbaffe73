"""Forecasts become what is handed over in one place: held-out windows calibrate each other, and never themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from panels import panel_of, random_series

from cellwise.tasks.forecasting.calibration import Calibration
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.postprocessing import Postprocessing, Windows

QUANTILES = (0.05, 0.1, 0.5, 0.9, 0.95)
HORIZON = 4
CUTOFFS = np.array([[20, 24, 26, 40]] * 3)


def naive(panel: Panel, horizon: int) -> np.ndarray:
    """The last value, with bands of one and two percent."""
    last = np.array([y[-1] for y in panel.y])
    return last[:, None, None] * np.ones((1, horizon, 1)) * np.array([0.98, 0.99, 1.0, 1.01, 1.02])


@pytest.fixture
def panel() -> Panel:
    return panel_of(random_series(count=3, steps=44))


@pytest.fixture
def windows(panel: Panel) -> Windows:
    return Windows.roll(naive, panel, CUTOFFS, HORIZON, len(QUANTILES))


def test_windows_hold_what_was_forecast_and_what_came(panel: Panel, windows: Windows) -> None:
    assert windows.forecasts.shape == (12, HORIZON, 5) and np.all(np.diff(windows.times) >= 0)
    for row in range(12):
        i, cutoff = windows.series[row], windows.cutoffs[row]
        assert np.array_equal(windows.truth[row], panel.y[i][cutoff : cutoff + HORIZON])
        assert windows.forecasts[row, 0, 2] == panel.y[i][cutoff - 1]
    known = windows.known(panel)
    assert known.lengths.tolist() == windows.cutoffs.tolist()
    none = Windows.roll(naive, panel, np.full((3, 2), -1), HORIZON, 5)
    assert len(none) == 0 and len(none + windows) == 12


def altered(windows: Windows, cutoff: int) -> Windows:
    """With another truth at one cutoff."""
    truth = np.where((windows.cutoffs == cutoff)[:, None], windows.truth * 3, windows.truth)
    return replace(windows, truth=truth)


def test_a_window_is_not_calibrated_by_its_own_truth(panel: Panel, windows: Windows) -> None:
    before = windows.calibrated_by_others(QUANTILES, panel)
    assert not np.array_equal(before, windows.forecasts)
    after = altered(windows, 24).calibrated_by_others(QUANTILES, panel)
    changed = {int(c) for c in windows.cutoffs[(before != after).any(axis=(1, 2))]}
    assert changed == {20, 40}  # that at 26 shares values with that at 24


def test_windows_of_one_time_are_calibrated_by_other_series(panel: Panel) -> None:
    windows = Windows.roll(naive, panel, np.full((3, 1), 40), HORIZON, 5)
    before = windows.calibrated_by_others(QUANTILES, panel)
    truth = windows.truth.copy()
    truth[1] *= 3
    after = replace(windows, truth=truth).calibrated_by_others(QUANTILES, panel)
    assert (before != after).any(axis=(1, 2)).tolist() == [True, False, True]


def test_a_single_window_stays_as_it_is() -> None:
    panel = panel_of(random_series(count=1, steps=44))
    windows = Windows.roll(naive, panel, np.array([[40]]), HORIZON, 5)
    assert np.array_equal(windows.calibrated_by_others(QUANTILES, panel), windows.forecasts)


def test_in_turn_a_window_is_calibrated_by_what_was_known_then(panel: Panel, windows: Windows) -> None:
    asked = np.full((3, 4), -1)
    asked[:, 1:] = CUTOFFS[:, 1:]
    before = windows.calibrated_in_turn(QUANTILES, panel, asked)
    assert len(before) == 9
    for cutoff, changes in ((20, {24, 26, 40}), (24, {40}), (26, {40}), (40, set())):
        after = altered(windows, cutoff).calibrated_in_turn(QUANTILES, panel, asked)
        cutoffs = windows.at(asked).cutoffs[(before != after).any(axis=(1, 2))]
        assert {int(c) for c in cutoffs} == changes


def test_series_that_end_at_other_times_do_not_tell_of_the_future(panel: Panel) -> None:
    """Windows of one series end long after those of another, though both lie at the ends of their series."""
    shifted = replace(panel, times=tuple(times + 1000 * i for i, times in enumerate(panel.times)))
    windows = Windows.roll(naive, shifted, np.full((3, 1), 40), HORIZON, 5)
    made = windows.calibrated_in_turn(QUANTILES, shifted, np.full((3, 1), 40))
    assert np.array_equal(made[0], windows.forecasts[0])  # nothing was known before it
    assert not np.array_equal(made[2], windows.forecasts[2])


def test_forecasts_are_replayed_for_whoever_asks(panel: Panel, windows: Windows) -> None:
    replay = windows.replay(panel, windows.forecasts)
    asked = panel.select([2, 0]).cut([26, 40])
    assert np.array_equal(replay(asked, HORIZON), naive(asked, HORIZON))
    with pytest.raises(KeyError):
        replay(panel.cut([7, 7, 7]), HORIZON)


def test_there_and_back(panel: Panel, windows: Windows) -> None:
    found = Windows.from_tensors(windows.tensors(), panel, HORIZON, 5)
    assert all(np.array_equal(getattr(found, name), getattr(windows, name)) for name in windows.tensors())
    made = Postprocessing(None, windows.calibration(QUANTILES, panel))
    again = Postprocessing.from_dict(made.to_dict(), QUANTILES)
    forecasts = naive(panel, 6)
    assert np.array_equal(again.apply(panel, forecasts), made.apply(panel, forecasts))
    assert again.notes == made.notes
    assert np.array_equal(Postprocessing().apply(panel, forecasts), forecasts)
    assert Postprocessing().notes == ("the bands are not calibrated, as it was asked for",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forecasts", torch.zeros(12, HORIZON, 3, dtype=torch.float64)),
        ("forecasts", torch.zeros(12, HORIZON, 5)),
        ("truth", torch.zeros(11, HORIZON, dtype=torch.float64)),
        ("series", torch.full((12,), 3)),
        ("series", torch.full((12,), -1)),
        ("cutoffs", torch.full((12,), 45)),
        ("cutoffs", torch.full((12,), 0)),
        ("times", torch.zeros(12)),
        ("scale", torch.zeros(12, 1, dtype=torch.float64)),
    ],
)
def test_windows_that_are_none_are_refused(
    panel: Panel, windows: Windows, name: str, value: torch.Tensor
) -> None:
    with pytest.raises(ValueError, match="window"):
        Windows.from_tensors(windows.tensors() | {name: value}, panel, HORIZON, 5)


def test_a_calibration_of_other_quantiles_is_refused(panel: Panel, windows: Windows) -> None:
    made = Postprocessing(None, windows.calibration(QUANTILES, panel)).to_dict()
    with pytest.raises(ValueError, match="other quantiles"):
        Postprocessing.from_dict(made, (0.1, 0.5, 0.9))
    with pytest.raises(ValueError, match="blend"):
        Postprocessing.from_dict(made | {"blend": {}}, QUANTILES)


def test_windows_that_are_mostly_open_do_not_calibrate(panel: Panel, windows: Windows) -> None:
    whole = windows.calibration(QUANTILES, panel)
    open_ones = altered(windows, 40)
    open_ones.truth[open_ones.cutoffs == 40, 1:] = np.nan  # one step of four is known
    rest = windows.select(windows.cutoffs != 40).calibration(QUANTILES, panel)
    assert np.array_equal(open_ones.calibration(QUANTILES, panel).factors, rest.factors)
    assert not np.array_equal(whole.factors, rest.factors)
    assert isinstance(rest, Calibration)
