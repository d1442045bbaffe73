"""Comparisons: fair, resumable, plain about chance, and no worse for what a file says."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import rewrite_json
from sums import SumRegressor

from cellwise import Cell, cells, tanh
from cellwise.tasks import CharacterModel, Forecaster, compare
from cellwise.tasks.comparing.compare import CompareInterrupted
from cellwise.tasks.comparing.page import write_comparison
from cellwise.tasks.comparing.plan import candidates_of, jobs_of
from cellwise.tasks.comparing.progress import Silent
from cellwise.tasks.comparing.record import COMPARISON
from cellwise.tasks.comparing.result import Comparison, ComparisonRun
from cellwise.tasks.comparing.spread import Sample, is_difference_shown
from cellwise.tasks.errors import DataError, OptionError, RunFolderError, TaskError, TrainingError
from cellwise.tasks.training.history import Epoch
from cellwise.tasks.training.run_files import RunFolder

pytestmark = pytest.mark.draws

TEXT = "".join(f"The whale number {i} swims, and so does the ship.\n" for i in range(30))
SERIES = [np.sin(np.arange(90.0)) + level for level in (5, 9)]


def model(**settings: Any) -> CharacterModel:
    return CharacterModel(**{"hidden_size": 4, "embedding_size": 3, "length": 20, "epochs": 1} | settings)


def told(found: Comparison) -> list[Any]:
    """All of the runs but what the clock says."""
    return [replace(each, seconds=0.0, milliseconds=None) for each in found.runs]


class Seen(Silent):
    """Notes the trainings in their order, and may stop one."""

    def __init__(self, stop: tuple[str, int] | None = None) -> None:
        self.trained: list[tuple[str, int]] = []
        self._stop = stop

    def epoch(self, candidate: str, seed: int, epoch: Epoch) -> None:
        if (candidate, seed) == self._stop:
            raise KeyboardInterrupt

    def run(self, run: ComparisonRun, metric: str) -> None:
        self.trained.append((run.candidate, run.seed))


# --- what is trained --------------------------------------------------------------------------------------------


def test_figures_are_those_of_fit_with_the_same_seed() -> None:
    start, seen = model(seed=3), Seen()
    found = compare(start, TEXT, cells=["gru", "lstm"], seeds=2, progress=seen)
    assert seen.trained == [("gru", 3), ("lstm", 3), ("lstm", 4), ("gru", 4)], (
        "forwards and backwards in turn"
    )
    fitted = model(cell="lstm", seed=4).fit(TEXT)
    run = next(each for each in found.runs if (each.candidate, each.seed) == ("lstm", 4))
    assert run.metrics == fitted.measure(fitted.held_out_)
    assert run.parameters == sum(each.numel() for each in fitted.network_.parameters())
    assert run.epochs == 1 and run.seconds > 0 and run.milliseconds > 0
    lstm = next(row for row in found.rows if row.name == "lstm")
    values = [each.metrics["bits_per_character"] for each in lstm.runs]
    assert lstm.mean["bits_per_character"] == pytest.approx(np.mean(values), rel=1e-12)
    assert lstm.spread["bits_per_character"] == pytest.approx(np.std(values, ddof=1), rel=1e-9)
    assert not start.is_fitted and start.get_params() == model(seed=3).get_params()


def test_values_are_combined_with_cells() -> None:
    start = model()
    made = candidates_of(
        start, ["gru", cells.RNN(nonlinearity="relu")], {"hidden_size": [4, 8], "dropout": [0.5]}
    )
    assert [each.name for each in made] == [
        "gru hidden_size=4 dropout=0.5",
        "gru hidden_size=8 dropout=0.5",
        "rnn(nonlinearity=relu) hidden_size=4 dropout=0.5",
        "rnn(nonlinearity=relu) hidden_size=8 dropout=0.5",
    ]
    jobs = jobs_of(start, made, (0,), TEXT, {})
    assert [each.estimator.hidden_size for each in jobs] == [4, 8, 4, 8]
    assert len({each.folder for each in jobs}) == 4 and all("/" not in each.folder for each in jobs)
    found = compare(start, TEXT, settings={"hidden_size": [4, 8]}, seeds=1)
    assert found.candidates["gru hidden_size=8"] == {"cell": "gru", "hidden_size": 8}


def test_folders_are_names_of_their_own_whatever_cells_are_called() -> None:
    class Odd(Cell):
        name = "../../x"
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + h.n)

    class Other(Odd):
        name = "..-..-x"

    jobs = jobs_of(model(), candidates_of(model(), [Odd, Other, "gru"], None), (0,), TEXT, {})
    folders = [each.folder for each in jobs]
    assert len({each.casefold() for each in folders}) == 3
    assert all(set(each) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.=_x") for each in folders)
    assert not any(each.startswith((".", "-")) for each in folders)


def test_a_forecaster_is_measured_on_its_test_windows_beside_simple_methods() -> None:
    start = Forecaster(horizon=3, hidden_size=4, epochs=1, validation=1)
    found = compare(start, SERIES, cells=["gru", "gru+lstm"], seeds=1, cutoffs=2)
    fitted = Forecaster("gru+lstm", 3, hidden_size=4, epochs=1, validation=1).fit(SERIES, cutoffs=2)
    scores = {name: each.overall for name, each in fitted.backtest_.scores().items()}
    row = next(each for each in found.rows if each.name == "gru+lstm")
    assert row.mean == scores.pop(fitted.backtest_.model) and found.is_test
    assert {each.name: each.mean for each in found.simple} == scores and "SeasonalNaive" in scores
    assert found.words == "4 windows of 3 steps at the end of the data"
    assert found.prediction == "3 steps of one series"
    frame = found.frame
    assert frame["model"].to_list()[-1] in scores and frame["best"].sum() == 1
    assert frame.columns[:5] == ["model", "cell", "seeds", "MASE", "MASE spread"]


def test_runs_are_calibrated_but_learn_nothing_more_once_measured(tmp_path: Path) -> None:
    start = Forecaster(horizon=3, hidden_size=4, epochs=1)
    compare(start, SERIES, seeds=1, folder=tmp_path / "kept", cutoffs=2)
    made = Forecaster.load(tmp_path / "kept" / "gru-seed0")
    assert (made.refit, made.calibrate) == (False, True) and start.refit
    assert made.network_ is made.measured_ and made.trained_ is None


def test_any_task_is_measured_by_what_stops_it_or_by_test_data() -> None:
    generator = np.random.default_rng(0)
    sequences = [generator.normal(size=5) for _ in range(40)]
    sums = [float(each.sum()) for each in sequences]
    found = compare(SumRegressor(epochs=1, hidden_size=4), sequences, sums, cells=["gru", "rnn"], seeds=1)
    fitted = SumRegressor("rnn", epochs=1, hidden_size=4).fit(sequences, sums)
    row = next(each for each in found.rows if each.name == "rnn")
    assert row.mean == fitted.trained_.best.metrics and not found.is_test and found.prediction == ""
    tested = compare(
        SumRegressor(epochs=1, hidden_size=4),
        sequences,
        sums,
        seeds=1,
        test=sequences[:4],
        test_target=sums[:4],
    )
    again = SumRegressor(epochs=1, hidden_size=4).fit(sequences, sums)
    assert tested.rows[0].mean == again.measure(sequences[:4], sums[:4]) and tested.is_test


# --- what is concluded ------------------------------------------------------------------------------------------


def comparison(figures: dict[str, list[float]], higher: bool = False, **others: float) -> Comparison:
    runs = tuple(
        ComparisonRun(name, seed, {"error": value}, 1, 2.0 + seed, 9, 0.5)
        for name, values in figures.items()
        for seed, value in enumerate(values)
    )
    simple = {name: {"error": value} for name, value in others.items()}
    return Comparison(
        "sums", "error", higher, {name: {"cell": name} for name in figures}, runs, simple, "x", True
    )


@pytest.mark.parametrize("higher", [False, True])
def test_the_best_comes_first_and_a_clear_difference_is_called_one(higher: bool) -> None:
    figures = {"b": [2.0, 2.1, 2.2], "a": [1.0, 1.1, 0.9]}
    found = comparison(figures, higher, naive=1.5)
    best, other = ("b", "a") if higher else ("a", "b")
    assert [each.name for each in found.rows] == [best, other]
    assert found.rows[0].is_best and found.rows[1].is_behind is True
    said = " ".join(found.verdict)
    assert (
        f"{best} has the best error" in said and f"The difference to {other}, the next, is more than" in said
    )
    assert "The best simple method, naive, is at 1.50." in said


def test_a_difference_that_seeds_explain_is_said_to_be_none() -> None:
    found = comparison({"a": [1.0, 1.4], "b": [1.1, 1.5], "c": [9.0, 9.1]}, naive=0.5)
    assert [each.is_behind for each in found.rows] == [False, False, True]
    said = " ".join(found.verdict)
    assert "The difference to b is within the spread over seeds" in said and "to c" not in said
    assert "naive, a simple method, is at 0.500: no network is better." in said


def test_one_seed_shows_nothing_and_says_so() -> None:
    found = comparison({"a": [1.0], "b": [2.0]})
    assert found.rows[1].is_behind is None and found.rows[0].spread == {"error": None}
    assert "A single seed shows no spread" in found.verdict[1] and "±" not in found.verdict[0]


def test_a_simple_method_within_the_spread_is_said_to_be_within() -> None:
    said = comparison({"a": [1.0, 1.4]}, naive=1.3).verdict
    assert (
        said[-1]
        == "The best simple method, naive, is at 1.30, a difference that the spread over seeds may explain."
    )


def test_figures_that_are_no_numbers_come_last() -> None:
    found = comparison({"a": [math.nan, math.nan], "b": [1.0, 1.1]}, naive=math.nan)
    assert [each.name for each in found.rows] == ["b", "a"] and found.rows[1].is_behind is None
    assert " ".join(found.verdict)


def test_a_difference_is_shown_beyond_the_quantile_of_students_t() -> None:
    # With 4 degrees of freedom 95 % of |t| lie below 2.776.
    one = Sample([0.0, 1.0, 2.0])
    assert one.mean == 1.0 and one.spread == 1.0
    distance = math.sqrt(1 / 3 + 1 / 3)
    for t, shown in ((2.70, False), (2.85, True)):
        assert is_difference_shown(one, Sample([t * distance + each for each in (0.0, 1.0, 2.0)])) is shown
    for t, shown in ((4.2, False), (4.4, True)):  # 2 degrees of freedom against a number
        assert is_difference_shown(one, 1.0 + t * math.sqrt(1 / 3)) is shown
    assert is_difference_shown(Sample([1.0]), Sample([2.0, 3.0])) is None
    assert is_difference_shown(Sample([1.0, 1.0]), Sample([1.0, 1.0])) is False
    assert is_difference_shown(Sample([1.0, 1.0]), Sample([2.0, 2.0])) is True


# --- what fails -------------------------------------------------------------------------------------------------


class Fragile(CharacterModel):
    """Cannot train with a batch of 5."""

    def _objective(self, *args: Any) -> Any:
        if self.batch_size == 5:
            raise TrainingError("the loss became nan in step 1")
        return super()._objective(*args)


def test_a_training_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    start = Fragile(**model().get_params())
    options = {"settings": {"batch_size": [5, 4]}, "seeds": 2, "folder": tmp_path / "kept"}
    found = compare(start, TEXT, **options)
    assert [each.name for each in found.rows] == ["gru batch_size=4", "gru batch_size=5"]
    assert [each.problem for each in found.rows[1].runs] == ["the loss became nan in step 1"] * 2
    assert found.rows[1].mean == {} and found.best.name == "gru batch_size=4"
    page = (tmp_path / "kept" / "report.html").read_text()
    assert "Gru batch_size=5, seed 0, failed: the loss became nan in step 1" in page
    assert told(compare(start, TEXT, **options)) == told(found)
    with pytest.raises(TrainingError, match="none of 2 trainings came to a figure; the first: the loss"):
        compare(start, TEXT, settings={"batch_size": [5]}, seeds=2)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"cells": []}, "there is nothing to compare"),
        ({"cells": "gru"}, "cells must be a list of cells"),
        ({"cells": ["gru", cells.GRU]}, "gru is listed twice"),
        ({"seeds": 0}, "seeds must be a whole number from 1"),
        ({"seeds": True}, "seeds must be a whole number from 1"),
        ({"seeds": [1, 1]}, "a list of different seeds"),
        ({"seeds": [-1]}, "seed must be a whole number from 0"),
        ({"settings": {"hidden": [3]}}, "has no option 'hidden'"),
        ({"settings": {"hidden_size": [0]}}, "hidden_size must be a whole number from 1"),
        ({"settings": {"hidden_size": 3}}, "the values of hidden_size must be a list"),
        ({"settings": {"hidden_size": []}}, "hidden_size has no values"),
        ({"settings": {"seed": [1]}}, "seed is not a setting to compare; give seeds"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused_before_any_training(
    how: dict[str, Any], says: str
) -> None:
    seen = Seen()
    with pytest.raises(OptionError, match=says):
        compare(model(), TEXT, progress=seen, **how)
    assert not seen.trained


def test_what_is_measured_is_the_same_for_all() -> None:
    start = Forecaster(horizon=3, hidden_size=4, epochs=1)
    for name, values in (("horizon", [3, 4]), ("season_length", [4, 7]), ("validation", [1, 2])):
        with pytest.raises(OptionError, match=f"{name} decides how the networks are measured"):
            compare(start, SERIES, settings={name: values})


def test_without_anything_held_out_there_is_no_comparison() -> None:
    start = Forecaster(horizon=3, hidden_size=4, epochs=1, validation=0)
    with pytest.raises(DataError, match="nothing is held out from training"):
        compare(start, SERIES, seeds=1, cutoffs=0)


def test_several_processes_cannot_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TaskError, match="without torchrun"):
        compare(model(), TEXT)


# --- what is kept -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    folder = tmp_path_factory.mktemp("comparing") / "kept"
    return folder, compare(model(), TEXT, cells=["gru", "rnn"], seeds=2, folder=folder)


@pytest.fixture
def kept(_kept: tuple[Path, Comparison], tmp_path: Path) -> tuple[Path, Comparison]:
    """A copy of a finished comparison, and what it found."""
    import shutil

    shutil.copytree(_kept[0], tmp_path / "kept")
    return tmp_path / "kept", _kept[1]


def test_the_same_call_trains_nothing_again_and_more_seeds_are_added(kept: tuple[Path, Comparison]) -> None:
    folder, found = kept
    seen = Seen()
    assert compare(model(), TEXT, cells=["gru", "rnn"], seeds=2, folder=folder, progress=seen) == found
    assert not seen.trained
    more = compare(model(), TEXT, cells=["gru", "rnn", "lstm"], seeds=3, folder=folder, progress=seen)
    assert sorted(seen.trained) == [("gru", 2), ("lstm", 0), ("lstm", 1), ("lstm", 2), ("rnn", 2)]
    assert len(more.runs) == 9
    assert {(each.candidate, each.seed): each.metrics for each in found.runs}.items() <= {
        (each.candidate, each.seed): each.metrics for each in more.runs
    }.items()
    fewer = compare(model(), TEXT, cells=["rnn"], seeds=1, folder=folder, progress=seen)
    assert [each.candidate for each in fewer.runs] == ["rnn"] and len(seen.trained) == 5


def test_every_training_is_a_run_that_loads(kept: tuple[Path, Comparison]) -> None:
    folder, found = kept
    loaded = CharacterModel.load(folder / "rnn-seed1")
    run = next(each for each in found.runs if (each.candidate, each.seed) == ("rnn", 1))
    assert loaded.measure(loaded.held_out_) == run.metrics
    page = (folder / "report.html").read_text()
    assert "gru and rnn compared" in page and "<svg" in page and (folder / "plots" / "cost.svg").is_file()


def test_an_interrupted_comparison_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    options = {"cells": ["gru", "rnn"], "seeds": 2}
    whole = compare(model(epochs=2), TEXT, **options)
    with pytest.raises(CompareInterrupted, match="stopped in training 3 of 4; 2 are kept in") as stopped:
        compare(model(epochs=2), TEXT, folder=tmp_path / "kept", progress=Seen(("rnn", 1)), **options)
    assert told(stopped.value.comparison) == told(whole)[:2] and stopped.value.status == 130
    seen = Seen()
    assert told(compare(model(epochs=2), TEXT, folder=tmp_path / "kept", progress=seen, **options)) == told(
        whole
    )
    assert seen.trained == [("rnn", 1), ("gru", 1)]


def test_a_run_that_was_trained_but_not_measured_is_not_trained_again(kept: tuple[Path, Comparison]) -> None:
    folder, found = kept
    content = json.loads((folder / COMPARISON).read_text())
    del content["runs"]["rnn-seed0"], content["sha256"]
    RunFolder(folder).write_json(COMPARISON, content)
    weights = (folder / "rnn-seed0" / "best.safetensors").stat().st_mtime_ns
    again = compare(model(), TEXT, cells=["gru", "rnn"], seeds=2, folder=folder)
    assert told(again) == told(found)
    assert [each.seconds for each in again.runs] == [each.seconds for each in found.runs], (
        "from the run's history"
    )
    assert (folder / "rnn-seed0" / "best.safetensors").stat().st_mtime_ns == weights


def test_other_settings_data_or_equations_are_refused_and_overwrite_begins_anew(
    kept: tuple[Path, Comparison],
) -> None:
    folder, _ = kept
    with pytest.raises(RunFolderError, match="was trained with epochs = 1, not 2; go on as it was"):
        compare(model(epochs=2), TEXT, cells=["gru", "rnn"], seeds=2, folder=folder)
    with pytest.raises(RunFolderError, match="was trained with other data"):
        compare(model(), TEXT + "!", cells=["gru", "rnn"], seeds=2, folder=folder)

    class GRU(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + h.n)

    with pytest.raises(RunFolderError, match="was trained with other equations"):
        compare(model(), TEXT, cells=[GRU], seeds=2, folder=folder)
    (folder / "gru-seed0" / "mine.txt").write_text("keep me")
    again = compare(model(epochs=2), TEXT, cells=["gru", "rnn"], seeds=1, folder=folder, overwrite=True)
    assert [each.epochs for each in again.runs] == [2, 2]
    assert (folder / "gru-seed0" / "mine.txt").read_text() == "keep me"
    (folder / COMPARISON).unlink()
    with pytest.raises(RunFolderError, match="is not empty and holds no comparison"):
        compare(model(), TEXT, cells=["gru"], seeds=1, folder=folder)


def test_test_data_of_another_call_is_measured_on_the_same_runs(tmp_path: Path) -> None:
    options = {"cells": ["gru"], "seeds": 1, "folder": tmp_path / "kept"}
    first, seen = compare(model(), TEXT, test=TEXT[:200], **options), Seen()
    second = compare(model(), TEXT, test=TEXT[200:500], progress=seen, **options)
    loaded = CharacterModel.load(tmp_path / "kept" / "gru-seed0")
    assert first.rows[0].mean == loaded.measure(TEXT[:200]) != second.rows[0].mean
    assert second.rows[0].mean == loaded.measure(TEXT[200:500])


def _change(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / COMPARISON).read_text())
        change(content)
        content.pop("sha256", None)
        RunFolder(folder).write_json(COMPARISON, content)

    return apply


def _of_run(**values: Any) -> Callable[[Path], None]:
    return _change(lambda content: content["runs"]["gru-seed0"]["run"].update(values))


FORGED: dict[str, Callable[[Path], None]] = {
    "another format": _change(lambda content: content.update(format=9)),
    "runs that are a list": _change(lambda content: content.update(runs=[])),
    "a run of text": _change(lambda content: content["runs"].update({"gru-seed0": "x"})),
    "a run without figures": _change(lambda content: content["runs"]["gru-seed0"].pop("run")),
    "another run's": _of_run(candidate="rnn"),
    "more than a run has": _of_run(code="import os"),
    "seconds of text": _of_run(seconds="1"),
    "seconds without end": _of_run(seconds=1e999),
    "metrics of text": _of_run(metrics={"bits_per_character": "1"}),
    "no metrics": _of_run(metrics={}),
    "a problem and figures": _of_run(problem="it failed"),
    "a problem that is none": _of_run(problem=3),
    "no identity": _change(lambda content: content["runs"]["gru-seed0"].update(identity=None)),
    "held out of text": _change(lambda content: content["runs"]["gru-seed0"].update(held_out="x")),
    "others of text": _change(
        lambda content: content["runs"]["gru-seed0"]["held_out"].update(others={"a": 3})
    ),
    "others without figures": _change(
        lambda content: content["runs"]["gru-seed0"]["held_out"].update(others={"a": {}})
    ),
    "another metric": _of_run(metrics={"accuracy": 1.0}),
    "words of numbers": _change(lambda content: content["runs"]["gru-seed0"]["held_out"].update(words=3)),
    "cut short": lambda folder: (folder / COMPARISON).write_text((folder / COMPARISON).read_text()[:-30]),
    "altered": lambda folder: (folder / COMPARISON).write_text(
        (folder / COMPARISON).read_text().replace('"epochs": 1', '"epochs": 7')
    ),
    "nested": lambda folder: (folder / COMPARISON).write_text("[" * 100_000),
}


@pytest.mark.parametrize("spoil", FORGED.values(), ids=FORGED)
def test_a_damaged_file_is_one_sentence(kept: tuple[Path, Comparison], spoil: Callable[[Path], None]) -> None:
    folder, _ = kept
    spoil(folder)
    with pytest.raises(RunFolderError) as error:
        compare(model(), TEXT, cells=["gru", "rnn"], seeds=2, folder=folder)
    assert (
        "is damaged" in str(error.value) and COMPARISON in str(error.value) and "\n" not in str(error.value)
    )


def test_a_damaged_sub_run_is_said_where_it_is(kept: tuple[Path, Comparison]) -> None:
    folder, _ = kept
    _change(lambda content: content["runs"].pop("rnn-seed0"))(folder)
    rewrite_json(folder / "rnn-seed0" / "config.json", {("settings", "hidden_size"): 5})
    with pytest.raises(RunFolderError, match="rnn-seed0 is damaged"):
        compare(model(), TEXT, cells=["gru", "rnn"], seeds=2, folder=folder)


def test_no_fault_of_the_page_ends_a_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cellwise.tasks.comparing import compare as module
    from cellwise.tasks.errors import ReportWarning

    def broken(*_: Any) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(module, "write_comparison", broken)
    with pytest.warns(ReportWarning, match="no ink"):
        found = compare(model(), TEXT, seeds=1, folder=tmp_path / "kept")
    assert found.best is not None


def test_a_page_of_many_runs_and_odd_figures_can_be_drawn(tmp_path: Path) -> None:
    figures = {f"cell{i}": [1.0 + 0.01 * i, 1.1] for i in range(40)}
    found = comparison(figures, naive=50.0, near=1.2)
    write_comparison(RunFolder(tmp_path), found, {"epochs": 3})
    page = (tmp_path / "report.html").read_text()
    assert "The first 60 of 80" in page and "cell39" in page
    drawn = (tmp_path / "plots" / "cost.svg").read_text()
    assert "near" in drawn and "naive" not in drawn, (
        "one that is far off would press the networks into a line"
    )


def test_timing_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    compare(model(threads=2), TEXT, seeds=1)
    assert torch.get_num_threads() == before
