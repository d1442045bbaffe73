"""The study of gradients: every start, before and after training, and its way through a file."""

import json
from dataclasses import asdict

import pytest
import torch

from cellwise import Cell, cells
from cellwise.experiments.vanishing_gradients import (
    STARTS,
    Curve,
    GradientStudy,
    StudySettings,
    study_gradients,
)
from cellwise.understand.figures import rebuild
from cellwise.understand.jacobians import GradientError


@pytest.fixture(scope="module")
def study():
    settings = StudySettings(length=20, hidden_size=6, seeds=2, sequences=2, train_length=4, updates=10)
    return study_gradients([cells.get(name) for name in ("rnn", "lstm")], settings)


def test_a_study_measures_every_start_before_and_after(study):
    assert {(c.cell, c.start) for c in study.curves} == {
        (cell, start)
        for cell in ("rnn", "lstm")
        for start in STARTS
        if (cell, start) != ("rnn", "forget bias")  # it has no such gate
    }
    for curve in study.curves:
        assert len(curve.middle) == len(curve.low) == len(curve.high) == 21
        assert all(
            low <= middle * (1 + 1e-9) and middle <= high * (1 + 1e-9)
            for low, middle, high in zip(curve.low, curve.middle, curve.high, strict=True)
        )
    assert study.find("lstm", "as drawn", trained=True, clipped=False).training.seeds == 2


def test_training_changes_what_is_measured(study):
    for cell in study.cells:
        assert study.find(cell, "as drawn").middle != study.find(cell, "as drawn", trained=True).middle


def test_a_bias_that_keeps_slows_the_fall(study):
    assert study.find("lstm", "forget bias").rate > study.find("lstm", "as drawn").rate


def test_equal_seeds_give_equal_studies_and_leave_the_generator_alone(study):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    again = study_gradients([cells.get(name) for name in study.cells], study.settings)
    assert torch.equal(torch.rand(1), expected)
    assert again == study


def test_a_study_survives_its_file(study):
    assert rebuild(GradientStudy, json.loads(json.dumps(asdict(study)))) == study


def test_what_explodes_is_noted_and_costs_nothing_else():
    class Exploding(Cell):
        gates = ("n",)

        def step(self, x, h):
            return x.n + 1e40 * h

    settings = StudySettings(length=20, hidden_size=4, seeds=1, sequences=2, train=False)
    study = study_gradients([Exploding(), cells.get("rnn")], settings)
    assert {curve.cell for curve in study.curves} == {"rnn"}
    assert study.notes[0].startswith(
        "exploding, as drawn: The states of exploding are not finite before step"
    )
    with pytest.raises(GradientError, match="not finite"):
        study_gradients([Exploding()], settings)


def test_beyond_the_measured_lags_the_last_one_counts():
    curve = Curve("a", "as drawn", (1.0, 0.5, 0.25), (1.0, 0.5, 0.25), (1.0, 0.5, 0.25), 0.5)
    assert (curve.at(1), curve.at(9)) == (0.5, 0.25)
