"""A network is measured, then learns what it was measured on: two stages in one run, each resumed to the same bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars
import pytest
import torch
from faults import FAULTS, KILLED, REFUSED, Disk, calls_of, in_a_fork, watched
from safetensors.torch import load_file
from test_forecaster import wave

from cellwise.tasks import Forecaster
from cellwise.tasks.errors import RunFolderError, TrainingInterrupted
from cellwise.tasks.training import loop
from cellwise.tasks.training.progress import Lines, Silent
from cellwise.tasks.training.run_check import check_run
from cellwise.tasks.training.run_lock import LOCK
from cellwise.tasks.training.settings import TrainSettings
from cellwise.tasks.training.stage import continued_settings, first_settings

FILES = (
    "best.safetensors",
    "last.safetensors",
    "refit.safetensors",
    "final.safetensors",
    "windows.safetensors",
)
SETTINGS: dict[str, Any] = {"horizon": 5, "hidden_size": 4, "epochs": 2, "patience": 0}


class StopInRefit(Silent):
    """Ctrl-C in the stage that continues the training, after some of its steps."""

    def __init__(self, steps: int) -> None:
        self.stage, self.steps = "", steps

    def start(
        self, epochs: int | None, steps: int, done: int, seconds: float | None = None, stage: str = ""
    ) -> None:
        self.stage = stage

    def step(self, epoch: int, loss: float) -> None:
        self.steps -= bool(self.stage)
        if self.stage and self.steps == 0:
            raise KeyboardInterrupt


def same_run(one: Path, other: Path) -> None:
    """Equal bits in every file of weights and windows, and equal rows but for the seconds."""
    for name in FILES:
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(a[key].equal(b[key]) or a[key].isnan().any() for key in a), name
    rows = [polars.read_csv(run / "metrics.csv").drop("seconds") for run in (one, other)]
    assert rows[0].equals(rows[1])
    assert Forecaster.load(one).predict().equals(Forecaster.load(other).predict())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    Forecaster(**SETTINGS).fit(wave(), folder=folder, progress=False)
    return folder


def test_the_measured_network_stays_and_another_predicts(whole: Path) -> None:
    loaded = Forecaster.load(whole)
    best, final = load_file(whole / "best.safetensors"), load_file(whole / "final.safetensors")
    assert not all(torch.equal(best[name], final[name]) for name in best)
    assert all(torch.equal(value, best[name]) for name, value in loaded.measured_.state_dict().items())
    assert all(torch.equal(value, final[name]) for name, value in loaded.network_.state_dict().items())
    assert {"final.safetensors", "refit.safetensors", "windows.safetensors"} <= {
        each.name for each in check_run(whole)
    }


def test_metrics_say_which_stage_a_row_is_of(whole: Path) -> None:
    rows = polars.read_csv(whole / "metrics.csv")
    assert rows["stage"].to_list() == ["train", "train", "refit"]
    assert rows["epoch"].to_list() == [1, 2, 1]
    assert rows["scaled_pinball"].is_null().to_list() == [False, False, True]


def test_what_is_loaded_is_what_was_fitted(tmp_path: Path) -> None:
    made = Forecaster(**SETTINGS).fit(wave(), folder=tmp_path / "run", progress=False)
    made.save(tmp_path / "saved")
    for folder in ("run", "saved"):
        loaded = Forecaster.load(tmp_path / folder)
        assert loaded.predict(horizon=12).equals(made.predict(horizon=12))
        assert loaded.scores().equals(made.scores()) and loaded.notes_ == made.notes_
        assert loaded.evaluate(wave(80), cutoffs=2).equals(made.evaluate(wave(80), cutoffs=2))


@pytest.mark.parametrize("steps", [1, 8])
def test_stopped_in_the_second_stage_and_resumed(whole: Path, tmp_path: Path, steps: int) -> None:
    done = f"{steps} of the .* steps of this one are saved"
    with pytest.raises(TrainingInterrupted, match=f"stopped in epoch 1 of the refit; {done}"):
        Forecaster(**SETTINGS).fit(wave(), folder=tmp_path / "run", progress=StopInRefit(steps))
    assert not (tmp_path / "run" / "final.safetensors").exists()
    with pytest.raises(RunFolderError, match="is not finished"):
        Forecaster.load(tmp_path / "run")
    unfinished = Forecaster.load(tmp_path / "run", unfinished=True)
    assert any(note.startswith("the bands are not calibrated") for note in unfinished.notes_)
    torch.rand(3)
    resumed = Forecaster(**SETTINGS).fit(wave(), folder=tmp_path / "run", progress=False)
    assert resumed.trained_ is not None and resumed.trained_.resumed_after == 2
    same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_calls_of_both_stages(
    fault: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Forecaster, "_report", lambda self, run: None
    )  # it is tested by itself, and takes long

    table = Forecaster(**SETTINGS).read(wave())  # here: polars has threads, which a fork does not

    def fit(folder: Path) -> None:
        Forecaster(**SETTINGS).fit(table, folder=folder, progress=False)

    calls = calls_of(tmp_path / "counted", lambda: fit(tmp_path / "counted"))
    first = next(i for i, call in enumerate(calls) if "refit.safetensors" in str(call[1]))
    ended = {KILLED: 0, REFUSED: 0, 0: 0}
    chosen = range(first - 4, len(calls), 7 if fault == "kill" else 25)  # from the end of the first stage on
    for at in chosen:
        folder = tmp_path / f"{fault} {at}"

        def faulty(folder: Path = folder, at: int = at) -> None:
            with watched(Disk(folder, fault, at)):
                fit(folder)

        ended[in_a_fork(faulty, (RunFolderError, OSError))] += 1
        if not (folder / "summary.json").exists():
            fit(folder)
        same_run(folder, whole)
        assert {path.name for path in folder.iterdir()} - {LOCK} == {
            path.name for path in (tmp_path / "counted").iterdir()
        }
        shutil.rmtree(folder)
    assert ended[KILLED] == (len(chosen) if fault in ("kill", "short") else 0)


def test_a_kill_within_the_second_stage(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)  # the state is saved after every step
    monkeypatch.setattr(Forecaster, "_report", lambda self, run: None)
    folder, table = tmp_path / "run", Forecaster(**SETTINGS).read(wave())
    steps = iter(range(10_000))

    class Kill(StopInRefit):
        def step(self, epoch: int, loss: float) -> None:
            if self.stage and next(steps) == 9:
                import os

                os._exit(KILLED)

    def killed() -> None:
        Forecaster(**SETTINGS).fit(table, folder=folder, progress=Kill(0))

    assert in_a_fork(killed, (OSError,)) == KILLED
    assert (folder / "refit.safetensors").exists() and not (folder / "final.safetensors").exists()
    Forecaster(**SETTINGS).fit(table, folder=folder, progress=False)
    same_run(folder, whole)


def test_without_a_refit_the_measured_network_predicts(tmp_path: Path) -> None:
    made = Forecaster(**SETTINGS, refit=False).fit(wave(), folder=tmp_path / "run", progress=False)
    assert made.network_ is made.measured_ and made.refitted_ is None
    assert not any("refit" in path.name or "final" in path.name for path in (tmp_path / "run").iterdir())
    assert Forecaster.load(tmp_path / "run").predict().equals(made.predict())
    assert made.scores().equals(Forecaster.load(tmp_path / "run").scores())


def test_the_refit_does_not_touch_the_figures() -> None:
    with_refit, without = (
        Forecaster(**SETTINGS, refit=refit).fit(wave(), progress=False) for refit in (True, False)
    )
    assert with_refit.scores().equals(without.scores())
    assert not with_refit.predict().equals(without.predict())
    assert with_refit.refitted_ is not None and any(
        "learned what was held out" in note for note in with_refit.notes_
    )


def test_nothing_held_out_is_nothing_to_learn_again() -> None:
    made = Forecaster(**SETTINGS, validation=0).fit(wave(40), cutoffs=0, progress=False)
    assert made.refitted_ is None and made.network_ is made.measured_
    assert "the bands are not calibrated: nothing was held out" in made.notes_
    short = Forecaster(**SETTINGS).fit(wave(11), progress=False)
    assert "the bands are not calibrated: the series are too short to hold anything out" in short.notes_


def test_progress_names_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    Forecaster(**SETTINGS).fit(wave(), progress=Lines())
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "epoch", "refit"]


def test_the_settings_of_both_stages() -> None:
    given = TrainSettings(epochs=40, learning_rate=0.01, minutes=10, seed=3, patience=5, accumulate=2)
    first, second = first_settings(given), continued_settings(given, 30)
    assert first.minutes is not None and second.minutes is not None
    assert first.minutes + second.minutes == pytest.approx(10)
    assert second.minutes < 2
    assert second.epochs is not None and 1 <= second.epochs < 15
    assert second.patience == 0 and second.accumulate == 2 and second.seed != given.seed
    assert continued_settings(given, 1).epochs == 1
    assert first_settings(TrainSettings()) == TrainSettings()


def test_a_time_limit_covers_both_stages() -> None:
    made = Forecaster(**{**SETTINGS, "epochs": None}, minutes=0.1).fit(wave(), progress=False)
    assert made.trained_ is not None and made.refitted_ is not None
    assert sum(epoch.seconds for epoch in (*made.trained_.epochs, *made.refitted_.epochs)) < 0.1 * 60 * 1.5
    fixed = Forecaster(**{**SETTINGS, "epochs": 2}, minutes=5).fit(wave(), progress=False)
    assert fixed.trained_ is not None and len(fixed.trained_.epochs) == 2  # a number that is given counts
