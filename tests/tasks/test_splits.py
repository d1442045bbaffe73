"""What is held out of series of every length: in a clear order, said truly, and as a run folder remembers it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cellwise.tasks import Forecaster
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.frequency import parse_frequency
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.splits import (
    Split,
    former_split,
    restore_split,
    shortest_length,
    split,
    split_tensors,
)

HORIZONS = (1, 3, 7, 12, 28)


def panel(*lengths: int) -> Panel:
    """Series of these lengths."""
    count = len(lengths)
    none = tuple(np.zeros((length, 0)) for length in lengths)
    return Panel(
        ids=tuple(f"s{i}" for i in range(count)),
        frequency=parse_frequency("1", 1),
        times=tuple(np.arange(length) for length in lengths),
        y=tuple(np.arange(length) + 1.0 for length in lengths),
        known=none,
        past=none,
    )


def by_length(length: int, horizon: int, **asked: int | None) -> Split:
    return split(panel(length), horizon, **{"cutoffs": None, "step": horizon, "validation": None, **asked})


@pytest.mark.parametrize("horizon", HORIZONS)
def test_every_length_is_cut_in_a_clear_order(horizon: int) -> None:
    """Training comes first, then validation, then the test; each has what it needs, and no value is in two parts."""
    need, stage = shortest_length(horizon), 0
    for length in range(need, 201):
        parts = by_length(length, horizon)
        train, held, test = (
            int(parts.train[0]),
            parts.validation[parts.validation >= 0],
            parts.test[parts.test >= 0],
        )
        assert train >= need
        assert train == min([length, *held, *test])
        if len(test):
            assert len(held) and held.max() + horizon <= test.min() and test.max() + horizon == length
        elif len(held):
            assert held.max() + horizon == length
        now = 2 if len(test) else 1 if len(held) else 0
        assert now >= stage, f"a longer series ({length}) has less held out"
        stage = now
        assert (now > 0) == (length >= need + horizon)  # measured whenever it can be


@pytest.mark.parametrize("horizon", HORIZONS)
def test_the_notes_are_true_of_every_length(horizon: int) -> None:
    for length in range(shortest_length(horizon), 201):
        parts = by_length(length, horizon)
        held, test = parts.validation[parts.validation >= 0], parts.test[parts.test >= 0]
        said = " ".join(parts.notes).replace("step ", "steps ")
        if len(test):
            assert f"the last {length - test.min()} steps were kept from training" in said
            assert f"the {test.min() - held.min()} steps before that were held out" in said
        elif len(held):
            assert "too short for test windows" in said
            assert f"the last {length - held.min()} steps were held out" in said
        else:
            assert "nothing is held out for validation" in said


def test_what_is_asked_for_is_what_one_gets() -> None:
    parts = by_length(100, 5, cutoffs=3, validation=2)
    assert parts.test.tolist() == [[85, 90, 95]] and parts.validation.tolist() == [[75, 80]]
    none = by_length(100, 5, cutoffs=0, validation=0)
    assert not none.has_test and not none.has_validation and none.train.tolist() == [100]
    only_test = by_length(100, 5, validation=0)
    assert only_test.has_test and not only_test.has_validation
    with pytest.raises(
        SeriesTooShortError, match="a horizon of 5 and a test of one horizon needs at least 15"
    ):
        by_length(14, 5, cutoffs=1)
    assert any("for 1 of the 4 cutoffs only" in note for note in by_length(16, 5, cutoffs=4).notes)


def test_many_series_need_few_windows_each() -> None:
    one = by_length(1000, 10)
    many = split(panel(*[1000] * 40), 10, cutoffs=None, step=10, validation=None)
    assert (many.test >= 0).sum(axis=1).max() < (one.test >= 0).sum()
    assert (many.test >= 0).any(axis=1).all()


def test_short_series_beside_long_ones_are_trained_on_as_far_as_they_go() -> None:
    parts = split(panel(300, 9, 300), 7, cutoffs=None, step=7, validation=None)
    assert parts.train[1] == 9 and (parts.validation[1] < 0).all() and (parts.test[1] < 0).all()
    assert any("fewer than 14 values are forecast but not trained on ('s1')" in note for note in parts.notes)


def test_a_folder_remembers_the_split() -> None:
    parts = split(panel(90, 40), 4, cutoffs=2, step=3, validation=None)
    found = restore_split(split_tensors(parts), np.array([90, 40]))
    assert found is not None
    for name in ("train", "validation", "test"):
        assert np.array_equal(getattr(found, name), getattr(parts, name))
    assert restore_split({}, np.array([90])) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("split/train", torch.tensor([90, 0])),
        ("split/train", torch.tensor([90, 41])),
        ("split/train", torch.tensor([90])),
        ("split/test", torch.tensor([[1.0], [2.0]])),
        ("split/test", torch.tensor([[95], [3]])),
        ("split/validation", torch.tensor([-2, 3])),
    ],
)
def test_a_split_that_is_none_is_refused(name: str, value: torch.Tensor) -> None:
    whole = split_tensors(split(panel(90, 40), 4, cutoffs=2, step=3, validation=None))
    with pytest.raises(ValueError, match="windows"):
        restore_split(whole | {name: value}, np.array([90, 40]))


def test_the_split_of_earlier_versions_stays() -> None:
    """As version 0.2.0 cut 60 values with a horizon of 3: two windows for the test, two for validation."""
    parts = former_split(panel(60, 60), 3, cutoffs=2, step=3, validation=None)
    assert parts.test.tolist() == [[54, 57]] * 2 and parts.validation.tolist() == [[48, 51]] * 2
    assert parts.train.tolist() == [48, 48]


@pytest.mark.parametrize("horizon", [1, 4, 9])
def test_series_of_any_length_are_learned_measured_and_forecast(horizon: int) -> None:
    """No crash, and what is said of bands and figures is so."""
    need = shortest_length(horizon)
    lengths = {
        need,
        need + 1,
        need + horizon - 1,
        need + horizon,
        2 * need + horizon,
        6 * horizon + need,
        199,
    }
    for length in sorted(lengths):
        series = 10 + np.sin(np.arange(length) / 2) + np.random.default_rng(length).normal(size=length) / 10
        made = Forecaster(horizon=horizon, hidden_size=2, epochs=1).fit([series], progress=False)
        assert made.predict(horizon=horizon + 2).height == horizon + 2
        said = " ".join(made.notes_)
        measured = made.backtest_
        assert (measured is not None) == (length >= need + horizon)
        assert made.backtest_is_test_ == ("kept from training" in said)
        assert ("the bands are calibrated on" in said) == (measured is not None)
        assert ("learned what was held out" in said) == (measured is not None) == (made.refitted_ is not None)
        if measured is not None:
            assert np.isfinite(measured.forecasts[measured.model][measured.cutoffs >= 0]).all()
