"""A training that follows its plan to the end: an objective whose held-out windows choose nothing."""

from dataclasses import replace

import pytest
import torch
from regression import SETTINGS, Line, run
from test_forecaster import TINY, wave

from cellwise.tasks import Forecaster
from cellwise.tasks.training.history import Watch, read_history, watch_of
from cellwise.tasks.training.run_folder import RunFolder


class Worsening(Line):
    """Its figure grows with every epoch: the first looks best, though the weights go on changing."""

    count = 0

    def validate(self):
        self.count += 1
        return {"error": float(self.count)}


class Planned(Worsening):
    keeps_best = False


def test_the_plan_is_followed_to_its_end_and_its_last_weights_are_kept(tmp_path):
    impatient = replace(SETTINGS, patience=2)
    best, first = run(None, impatient, Worsening())
    assert (len(best.epochs), best.best.epoch, best.stopped_early) == (3, 1, True)
    last, planned = run(tmp_path / "run", impatient, Planned())
    assert (len(last.epochs), last.best.epoch, last.stopped_early) == (6, 6, False)
    _, unwatched = run(None, SETTINGS, Planned())
    for one, other in zip(planned.model.parameters(), unwatched.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not all(
        torch.equal(one, other)
        for one, other in zip(first.model.parameters(), planned.model.parameters(), strict=True)
    )
    stored = read_history(RunFolder(tmp_path / "run"))
    assert stored is not None and stored.best.epoch == 6


def test_runs_of_before_kept_their_best():
    assert watch_of({"metric": "error"}) == Watch("error", keeps_best=True)
    with pytest.raises(ValueError, match="no metric is named"):
        watch_of({"metric": "error", "keeps_best": "no"})


@pytest.mark.parametrize(
    ("options", "kept_best"),
    [({}, False), ({"epochs": 3}, True), ({"patience": 0}, True), ({"minutes": 5.0, "patience": 1}, True)],
)
def test_a_forecaster_follows_the_plan_unless_epochs_minutes_or_patience_are_given(options, kept_best):
    settings = {name: value for name, value in TINY.items() if name != "epochs"}
    model = Forecaster(**settings | options)
    data, panel = model._read(wave(), cutoffs=0, step=None)
    assert model._objective(model._network(data), data, panel).keeps_best == kept_best


def test_a_forecaster_trains_as_many_epochs_as_suit_its_data():
    settings = {name: value for name, value in TINY.items() if name != "epochs"}
    model = Forecaster(**settings).fit(wave(), cutoffs=0, progress=False)
    assert model.trained_ is not None
    assert len(model.trained_.epochs) == model._epochs(*model._read(wave(), cutoffs=0, step=None)) < 20
