"""A fault at every single step of writing a run leaves a run that is taken up again and ends in the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faults import FAULTS, KILLED, REFUSED, Crash, Disk, calls_of, in_a_fork, watched
from safetensors.torch import load_file

from cellwise.tasks import CharacterModel
from cellwise.tasks.errors import ReportWarning, RunFolderError
from cellwise.tasks.report.page import Chart, Page, Section
from cellwise.tasks.text import report
from cellwise.tasks.training import loop
from cellwise.tasks.training.run_files import BEST, LAST
from cellwise.tasks.training.run_lock import LOCK

TEXT = "the quick brown fox jumps over the lazy dog. " * 30


@pytest.fixture(autouse=True, scope="module")
def _small_page() -> Iterator[None]:
    """A report of one chart: what it holds is nothing to these tests, and making it takes longer than all else."""
    page = Page("", "", sections=(Section("", charts=(Chart("loss", "<svg></svg>", ""),)),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_page", lambda model: page)
        yield


def fit(folder: Path) -> CharacterModel:
    model = CharacterModel(
        "gru", embedding_size=2, hidden_size=4, epochs=2, length=64, batch_size=16, patience=0, seed=1
    )
    return model.fit(TEXT, folder=folder, progress=False)


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, optimizer and rows, but for the seconds; and both load."""
    for name in (BEST, LAST):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    rows = [
        [line.split(",")[:4] for line in (run / "metrics.csv").read_text().splitlines()]
        for run in (one, other)
    ]
    assert rows[0] == rows[1]
    answers = [CharacterModel.load(run).logits("the fox") for run in (one, other)]
    assert torch.equal(*answers)
    # A kill after the summary leaves the file of the lock, which nobody holds; a fault while the report is drawn leaves
    # a finished run without it.
    names = [{path.name for path in run.iterdir()} - {LOCK, "report.html", "plots"} for run in (one, other)]
    assert names[0] == names[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    fit(folder)
    return folder


def number_of_calls(tmp_path: Path) -> int:
    return len(calls_of(tmp_path / "counted", lambda: fit(tmp_path / "counted")))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_every_call(fault: str, whole: Path, tmp_path: Path) -> None:
    every = 2 if fault == "kill" else 5  # `make trials` takes every one
    count = number_of_calls(tmp_path)
    assert count > 40
    ended = {KILLED: 0, REFUSED: 0, 0: 0}
    for at in range(0, count, every):
        folder = tmp_path / f"{fault} {at}"

        def faulty(folder: Path = folder, at: int = at) -> None:
            with watched(Disk(folder, fault, at)):
                fit(folder)

        ended[in_a_fork(faulty, (RunFolderError, OSError, ReportWarning))] += 1
        if not (folder / "summary.json").exists():
            fit(folder)
        assert_same_run(folder, whole)
    assert ended[KILLED] == (len(range(0, count, every)) if fault in ("kill", "short") else 0)


def test_a_kill_at_every_call_of_a_run_that_saves_after_every_step(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_epochs = number_of_calls(tmp_path)
    shutil.rmtree(tmp_path / "counted")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    count = number_of_calls(tmp_path)
    assert count > at_epochs + 5
    for at in range(0, count, 3):
        folder = tmp_path / f"kill {at}"

        def faulty(folder: Path = folder, at: int = at) -> None:
            with watched(Disk(folder, "kill", at)):
                fit(folder)

        assert in_a_fork(faulty, ()) == KILLED
        if not (folder / "summary.json").exists():
            fit(folder)
        assert_same_run(folder, whole)


@pytest.mark.parametrize("names_are_lost", [True, False])
def test_a_loss_of_power_after_every_call(names_are_lost: bool, whole: Path, tmp_path: Path) -> None:
    calls = calls_of(tmp_path / "run", lambda: fit(tmp_path / "run"))
    crash = Crash(tmp_path / "run")
    for number, call in enumerate(calls):
        crash.do(*call)
        if number % 3:
            continue
        place = tmp_path / "after"
        crash.build(place, names_are_lost)
        if not (place / "summary.json").exists():
            fit(place)
        assert_same_run(place, whole)
        shutil.rmtree(place)


def test_without_the_sync_of_the_folder_the_power_test_would_fail(tmp_path: Path) -> None:
    calls = calls_of(tmp_path / "run", lambda: fit(tmp_path / "run"))
    crash = Crash(tmp_path / "run")
    for call in calls:
        if call[0] != "fsync":
            crash.do(*call)
    crash.build(tmp_path / "lost", names_are_lost=True)
    assert not any((tmp_path / "lost").iterdir())
    crash.build(tmp_path / "empty", names_are_lost=False)
    with pytest.raises(RunFolderError, match=r"config\.json is not JSON"):
        CharacterModel.load(tmp_path / "empty")
