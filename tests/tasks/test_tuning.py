"""The search for better settings: fair, repeatable, resumable, and no worse for what a file says."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellwise import Cell, cells, tanh
from cellwise.errors import UnknownCellError
from cellwise.tasks import CharacterModel, Forecaster, tune
from cellwise.tasks.errors import DataError, OptionError, RunFolderError, TaskError, TrainingError
from cellwise.tasks.options import Range, options_of
from cellwise.tasks.registry import tasks
from cellwise.tasks.training.digests import json_digest
from cellwise.tasks.tuning import sampling
from cellwise.tasks.tuning.progress import Silent, trial_line
from cellwise.tasks.tuning.record import SEARCH
from cellwise.tasks.tuning.sampling import Sampler
from cellwise.tasks.tuning.search import TuneInterrupted
from cellwise.tasks.tuning.trial import DONE, FAILED, PRUNED, Trial, Tuned

pytest.importorskip("optuna")

TEXT = "".join(f"The whale number {i} swims, and so does the ship.\n" for i in range(30))
SPACE = {"learning_rate": Range(1e-3, 3e-2, is_log=True), "dropout": Range(0.0, 0.5), "batch_size": (4, 8)}


def model(**settings: Any) -> CharacterModel:
    return CharacterModel(**{"hidden_size": 4, "embedding_size": 3, "length": 20, "epochs": 2} | settings)


def told(tuned: Tuned) -> list[Any]:
    """All of the trials but how long they took."""
    return [dataclasses.replace(each, seconds=0.0) for each in tuned.trials]


def test_trial_0_is_the_estimator_and_the_best_can_be_had_again() -> None:
    start = model()
    tuned = tune(start, TEXT, trials=3, search=SPACE)
    first = tuned.trials[0]
    assert first.settings == {"learning_rate": 3e-3, "dropout": 0.0, "batch_size": 16}
    fitted = model().fit(TEXT)
    assert first.epochs == tuple(each.metrics["bits_per_character"] for each in fitted.trained_.epochs)
    assert first.value == min(first.epochs)
    assert tuned.value == min(each.value for each in tuned.trials) and len(tuned.trials) == 3
    again = model(**tuned.best).fit(TEXT)
    assert again.trained_.watch.value(again.trained_.best) == tuned.value
    assert not start.is_fitted and start.get_params() == model().get_params()
    json.dumps([each.record for each in tuned.trials])


def test_equal_seeds_find_the_same_and_others_other_settings() -> None:
    tuned = tune(model(), TEXT, trials=3, search=SPACE)
    assert told(tune(model(), TEXT, trials=3, search=SPACE)) == told(tuned)
    other = tune(model(seed=1), TEXT, trials=2, search=SPACE)
    assert other.trials[1].settings != tuned.trials[1].settings


def test_suggestions_lie_where_they_are_looked_for_and_can_be_typed() -> None:
    sampler = Sampler(SPACE, seed=0, epochs=20, higher_is_better=False)
    trials: list[Trial] = []
    for number in range(25):
        settings, _ = sampler.suggest(trials)
        assert 1e-3 <= settings["learning_rate"] <= 3e-2
        assert 0 <= settings["dropout"] <= 0.5 and settings["dropout"] == round(settings["dropout"], 2)
        assert settings["learning_rate"] == float(f"{settings['learning_rate']:.1e}")
        assert settings["batch_size"] in (4, 8)
        # The better, the nearer the learning rate is to 0.01.
        value = abs(math.log(settings["learning_rate"] / 0.01))
        trials.append(Trial(number, settings, DONE, value, (value,), 1.0))
    early, late = trials[:10], trials[15:]
    assert np.mean([each.value for each in late]) < 0.5 * np.mean([each.value for each in early])


@pytest.mark.parametrize("higher", [False, True])
def test_a_trial_worse_than_the_median_is_given_up_but_not_at_once(higher: bool) -> None:
    sign = -1 if higher else 1
    sampler = Sampler(SPACE, seed=0, epochs=8, higher_is_better=higher)
    settings = {"learning_rate": 0.01, "dropout": 0.1, "batch_size": 4}
    done = [
        Trial(i, settings, DONE, sign * float(i), (sign * float(i),) * 8, 1.0)
        for i in range(sampling.UNPRUNED)
    ]
    _, bad = sampler.suggest(done)
    assert [bad.gives_up(epoch, sign * 3.0) for epoch in (1, 2, 3)] == [False, False, True]
    _, good = sampler.suggest(done)
    assert [good.gives_up(epoch, sign * 1.0) for epoch in (1, 2, 3)] == [False, False, False]
    _, early = sampler.suggest(done[1:])
    assert not early.gives_up(3, sign * 99.0), "too few are done to compare it with"


def test_a_trial_is_given_up_in_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "UNPRUNED", 1)
    tuned = tune(model(epochs=5), TEXT, trials=3, search={"learning_rate": (1e-8,)})
    assert tuned.trials[0].state == DONE
    given_up = [each for each in tuned.trials if each.state == PRUNED]
    assert given_up and all(each.value is None and len(each.epochs) == 2 for each in given_up)
    assert tuned.best == {"learning_rate": 3e-3}
    assert "given up after 2 epochs" in trial_line(given_up[0], tuned)


class Fragile(CharacterModel):
    """Cannot train with a batch of 5."""

    def _objective(self, *args: Any) -> Any:
        if self.batch_size == 5:
            raise TrainingError("the loss became nan in step 1")
        return super()._objective(*args)


def test_a_training_that_fails_is_a_trial_that_failed() -> None:
    start = Fragile(**model().get_params())
    tuned = tune(start, TEXT, trials=6, search={"batch_size": (5,)})
    failed = [each for each in tuned.trials if each.state == FAILED]
    assert failed and tuned.trials[0].state == DONE and tuned.best == {"batch_size": 16}
    assert all(each.problem == "the loss became nan in step 1" and each.value is None for each in failed)
    assert trial_line(failed[0], tuned).endswith("failed: the loss became nan in step 1")


class Picky(CharacterModel):
    """Cannot have a batch of 5, nor a length of 7."""

    def _understand(self, *args: Any) -> Any:
        if self.batch_size == 5:
            raise DataError("the text is too short for a batch of 5")
        return super()._understand(*args)

    def _network(self, data: Any) -> Any:
        if self.batch_size == 6:
            raise torch.OutOfMemoryError("out of memory\nTried to allocate much")
        return super()._network(data)


def test_settings_that_cannot_be_trained_end_a_trial_and_not_the_search() -> None:
    start = Picky(**model().get_params())
    tuned = tune(start, TEXT, trials=8, search={"batch_size": (5, 6)})
    problems = {each.settings["batch_size"]: each.problem for each in tuned.trials}
    assert problems == {16: "", 5: "the text is too short for a batch of 5", 6: "out of memory"}
    assert tuned.best == {"batch_size": 16}


def test_a_cell_that_was_given_as_a_class_is_searched_by_its_name(tmp_path: Path) -> None:
    start = Forecaster(horizon=3, hidden_size=4, epochs=1, validation=1, cell=cells.GRU)
    options = {"trials": 3, "search": {"cell": ("lstm", "gru+lstm")}, "folder": tmp_path / "kept"}
    tuned = tune(start, [np.sin(np.arange(60.0))], **options)
    assert tuned.trials[0].settings == {"cell": "gru"}
    assert {each.settings["cell"] for each in tuned.trials} <= {"gru", "lstm", "gru+lstm"}
    assert tune(start, [np.sin(np.arange(60.0))], **options) == tuned


def test_a_search_over_cells_goes_on_with_the_same_equations_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(Cell):
        name = "mine"
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + h.n)

    class Changed(Mine):
        name = "mine"

        def step(self, x, h):
            return tanh(x.n + 0.5 * h.n)

    options = {"trials": 2, "search": {"cell": ["mine"]}, "folder": tmp_path / "kept"}
    monkeypatch.setattr(cells, "_CELLS", {**cells._CELLS, "mine": Mine})
    tune(model(), TEXT, **options)
    monkeypatch.setitem(cells._CELLS, "mine", Changed)
    with pytest.raises(RunFolderError, match="was made with other equations of a cell"):
        tune(model(), TEXT, **options)


def test_trials_do_not_learn_what_only_predictions_need(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    whole = Forecaster._complete

    def complete(self: Forecaster) -> Any:
        tried.append((self.refit, self.calibrate, self.refitted_))
        return whole(self)

    monkeypatch.setattr(Forecaster, "_complete", complete)
    start = Forecaster(horizon=3, hidden_size=4, epochs=1, validation=1)
    tune(start, [np.sin(np.arange(60.0))], trials=2, search={"dropout": (0.2,)})
    assert tried == [(False, False, None)] * 2 and start.refit and start.calibrate


def test_what_is_given_is_not_searched() -> None:
    tuned = tune(CharacterModel(epochs=1, hidden_size=4, embedding_size=3), TEXT, trials=1)
    assert list(tuned.best) == [
        "length",
        "num_layers",
        "dropout",
        "batch_size",
        "learning_rate",
        "weight_decay",
    ]
    assert list(tune(model(), TEXT, trials=1, search=["dropout"]).best) == ["dropout"]


@pytest.mark.parametrize("task", tasks().values(), ids=tasks())
def test_every_declared_range_is_one_of_the_option_and_holds_its_default(task: Any) -> None:
    searched = [each for each in options_of(task.load_options()) if each.search is not None]
    assert {"hidden_size", "learning_rate"} <= {each.name for each in searched}
    for each in searched:
        ends = (each.search.low, each.search.high) if isinstance(each.search, Range) else each.search
        for value in ends:
            each.check(value)
        assert sampling.holds(each.search, each.default)
        assert not isinstance(each.search, Range) or {type(value) for value in ends} == {each.kind}


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"trials": 0}, "trials must be a whole number from 1, not 0"),
        ({"minutes": -1.0}, "minutes must be a number above 0, not -1.0"),
        ({"search": ["hidden"]}, "has no option 'hidden'"),
        ({"search": ["epochs"]}, "epochs declares no range to search"),
        ({"search": []}, "there is nothing to search"),
        ({"search": {"hidden_size": Range(0, 5)}}, "hidden_size must be a whole number from 1"),
        ({"search": {"cell": [object()]}}, "numbers and texts"),
        ({"search": {"cell": Range(0, 1)}}, "must be a list of names"),
        ({"search": {"cell": ["gru+lstm"]}}, "cell must be one cell for a CharacterModel"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(how: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        tune(model(), TEXT, **how)


def test_an_unknown_cell_is_refused_before_the_first_trial() -> None:
    with pytest.raises(UnknownCellError, match="No cell is called 'gro'"):
        tune(model(), TEXT, trials=2, search={"cell": ["lstm", "gro"]})


@pytest.mark.parametrize("name", ["horizon", "season_length", "validation", "levels"])
def test_what_decides_how_settings_are_measured_is_not_searched(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} decides how settings are measured"):
        tune(Forecaster(horizon=3), [np.arange(60.0)], trials=1, search={name: [3, 4]})


def test_without_anything_held_out_there_is_no_search(tmp_path: Path) -> None:
    start = Forecaster(horizon=3, hidden_size=4, epochs=1, validation=0)
    with pytest.raises(DataError, match="nothing is held out"):
        tune(start, [np.arange(60.0)], trials=1, folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_cells_can_be_searched_and_test_windows_are_not_looked_at() -> None:
    y = np.sin(np.arange(80.0))
    spoiled = np.concatenate([y[:-6], 1e6 * np.ones(6)])
    start = Forecaster(horizon=3, hidden_size=4, epochs=1, validation=1)
    found = [
        tune(start, [values], trials=3, search={"cell": ("gru", "mingru")}, cutoffs=2)
        for values in (y, spoiled)
    ]
    assert {each.settings["cell"] for each in found[0].trials} == {"gru", "mingru"}
    assert told(found[0]) == told(found[1])


def test_time_ends_a_search_but_not_before_the_first_trial() -> None:
    tuned = tune(model(), TEXT, minutes=1e-6)
    assert [each.number for each in tuned.trials] == [0] and tuned.trials[0].state == DONE


def test_a_trial_that_time_cuts_short_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    from cellwise.tasks.tuning import search

    class Clock:
        """Stands still until trial 1 has done an epoch."""

        now = 0.0

        def monotonic(self) -> float:
            return self.now

    class Late(Silent):
        def epoch(self, number: int, epoch: int, epochs: int, value: float) -> None:
            if number == 1:
                clock.now = 1e9

    clock = Clock()
    monkeypatch.setattr(search, "time", clock)
    tuned = tune(model(), TEXT, minutes=1, search=SPACE, progress=Late())
    assert [each.number for each in tuned.trials] == [0]


# --- what is kept -----------------------------------------------------------------------------------------------


class Stop(Silent):
    """Ctrl-C in an epoch of a trial."""

    def __init__(self, number: int) -> None:
        self.number = number

    def epoch(self, number: int, epoch: int, epochs: int, value: float) -> None:
        if (number, epoch) == (self.number, 2):
            raise KeyboardInterrupt


def test_an_interrupted_search_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    with pytest.raises(TuneInterrupted, match="stopped in trial 2; 2 trials are over and kept in") as stopped:
        tune(model(), TEXT, trials=4, search=SPACE, folder=folder, progress=Stop(2))
    assert stopped.value.status == 130
    assert [each.number for each in stopped.value.tuned.trials] == [0, 1]
    tuned = tune(model(), TEXT, trials=4, search=SPACE, folder=folder, progress=Stop(1))
    assert told(tuned) == told(tune(model(), TEXT, trials=4, search=SPACE))
    assert tune(model(), TEXT, trials=4, search=SPACE, folder=folder, progress=Stop(0)).trials == tuned.trials
    assert [each.name for each in folder.iterdir()] == [SEARCH]
    with pytest.raises(TuneInterrupted, match="goes on") as stopped:
        tune(model(), TEXT, search=SPACE, folder=folder, overwrite=True, progress=Stop(0))
    assert stopped.value.tuned is None, "all was begun anew"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    tune(model(), TEXT, trials=2, search=SPACE, folder=tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.parametrize(
    ("start", "text", "search", "says"),
    [
        (model(hidden_size=5), TEXT, SPACE, "hidden_size = 4, not 5"),
        (model(cell="lstm"), TEXT, SPACE, "cell = 'gru', not 'lstm'|other equations"),
        (model(), TEXT + "x", SPACE, "other data"),
        (model(), TEXT, SPACE | {"dropout": Range(0.0, 0.4)}, "the range of dropout = .*0.5.*, not .*0.4"),
        (model(), TEXT, ["dropout"], "batch_size searched, not fixed"),
        (model(), TEXT, SPACE | {"num_layers": (1, 2)}, "num_layers fixed, not searched"),
    ],
)
def test_another_search_is_not_gone_on_with(
    kept: Path, start: CharacterModel, text: str, search: Any, says: str
) -> None:
    before = (kept / SEARCH).read_bytes()
    with pytest.raises(RunFolderError, match=f"was made with ({says})"):
        tune(start, text, trials=2, search=search, folder=kept)
    assert (kept / SEARCH).read_bytes() == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(RunFolderError, match=r"choose another folder|is a file"):
            tune(model(), TEXT, trials=1, search=SPACE, folder=folder, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


def test_what_an_interrupted_write_has_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f"{SEARCH}.0a1b2c3d.part").write_text("{")
    tune(model(), TEXT, trials=1, search=SPACE, folder=tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == [SEARCH]


def _change(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    """A forger's: what is in the file is changed, and the checksum made to fit."""

    def changed(text: str) -> str:
        content = json.loads(text)
        del content["sha256"]
        change(content)
        return json.dumps(content | {"sha256": json_digest(content)})

    return changed


FORGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a later format": lambda content: content.update(format=2),
    "no trials": lambda content: content.pop("trials"),
    "a number": lambda content: content.update(trials=3),
    "another number": lambda content: content["trials"][1].update(number=7),
    "an unknown state": lambda content: content["trials"][1].update(state="good"),
    "done without a value": lambda content: content["trials"][1].update(value=None),
    "no finite value": lambda content: content["trials"][1].update(value=float("-inf")),
    "a huge number": lambda content: content["trials"][1].update(value=10**400),
    "a text for a value": lambda content: content["trials"][1].update(value="0.1"),
    "epochs of text": lambda content: content["trials"][1].update(epochs="ab"),
    "a problem that is none": lambda content: content["trials"][1].update(problem=3),
    "more than a trial has": lambda content: content["trials"][1].update(code="import os"),
    "other options": lambda content: content["trials"][1].update(settings={"hidden_size": 3}),
    "names alone": lambda content: content["trials"][1].update(settings=list(SPACE)),
    "a rate from nowhere": lambda content: content["trials"][1]["settings"].update(learning_rate=1.0),
    "a rate that cannot be": lambda content: content["trials"][1]["settings"].update(learning_rate=-1.0),
    "a batch of a list": lambda content: content["trials"][1]["settings"].update(batch_size=[4]),
}


@pytest.mark.parametrize(
    "spoil",
    [
        *(pytest.param(_change(change), id=name) for name, change in FORGED.items()),
        pytest.param(lambda text: text[: len(text) // 2], id="cut short"),
        pytest.param(lambda text: text.replace('"done"', '"pruned"'), id="altered"),
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: "[" * 100_000, id="nested"),
        pytest.param(lambda text: "3", id="no object"),
    ],
)
def test_a_damaged_file_is_one_sentence(kept: Path, spoil: Callable[[str], str]) -> None:
    text = (kept / SEARCH).read_text()
    (kept / SEARCH).write_text(spoil(text))
    with pytest.raises(RunFolderError) as error:
        tune(model(), TEXT, trials=3, search=SPACE, folder=kept)
    assert "is damaged" in str(error.value) and SEARCH in str(error.value) and "\n" not in str(error.value)
    (kept / SEARCH).write_text(_change(lambda content: None)(text))
    assert len(tune(model(), TEXT, trials=3, search=SPACE, folder=kept).trials) == 3


# --- what is not there ------------------------------------------------------------------------------------------


def test_without_optuna_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(TaskError, match=r"needs optuna, which is not installed.*: pip install optuna$"):
        tune(model(), TEXT, trials=1)


def test_several_processes_cannot_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TaskError, match="without torchrun"):
        tune(model(), TEXT, trials=1)


def test_optunas_own_messages_are_as_loud_as_before() -> None:
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        tune(model(), TEXT, trials=2, search=SPACE)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)
