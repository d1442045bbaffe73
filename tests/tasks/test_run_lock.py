"""One training at a time in a run folder, and a sentence that names it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellwise.tasks import CharacterModel
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training.progress import Silent
from cellwise.tasks.training.run_check import check_run
from cellwise.tasks.training.run_lock import LOCK, lock_run, who_trains

TEXT = "the quick brown fox jumps over the lazy dog. " * 30


def model(epochs: int = 2) -> CharacterModel:
    return CharacterModel(embedding_size=2, hidden_size=4, epochs=epochs, length=64, patience=0)


class During(Silent):
    """Do something after the first epoch."""

    def __init__(self, do) -> None:
        self.do = do

    def epoch(self, epoch, best) -> None:
        if epoch.epoch == 1:
            self.do()


def test_a_second_training_is_told_who_trains(tmp_path: Path) -> None:
    said: list[str] = []

    def second() -> None:
        with pytest.raises(RunFolderError) as refused:
            model().fit(TEXT, folder=tmp_path / "run", overwrite=True, progress=False)
        said.append(str(refused.value))
        with pytest.raises(RunFolderError, match=r"is not finished \(process \d+ on .* is training there\)"):
            CharacterModel.load(tmp_path / "run")
        assert "is training there" in list(check_run(tmp_path / "run"))[-1].words
        so_far = CharacterModel.load(tmp_path / "run", unfinished=True)
        assert so_far.logits("the fox").isfinite().all()

    model().fit(TEXT, folder=tmp_path / "run", progress=During(second))
    assert f"another training is in {tmp_path / 'run'}: process {os.getpid()} on " in said[0]
    assert "wait until it ends, or choose another folder" in said[0]
    assert CharacterModel.load(tmp_path / "run").evaluate() > 0
    assert not (tmp_path / "run" / LOCK).exists()
    assert all(each.is_whole for each in check_run(tmp_path / "run"))


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom cellwise.tasks.training.run_lock import lock_run\n"
        f"with lock_run(Path({str(folder)!r})):\n    print('here', flush=True)\n    time.sleep(600)\n"
    )
    folder.mkdir()
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    assert f"process {process.pid} on " in str(who_trains(folder))
    with pytest.raises(RunFolderError, match=f"process {process.pid} on"), lock_run(folder):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (folder / LOCK).exists()
    assert who_trains(folder) is None
    with lock_run(folder):
        assert json.loads((folder / LOCK).read_text())["process"] == os.getpid()
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[1]", b'{"process": "x"}', b"[" * 4096])
def test_a_lock_that_names_nobody(content: bytes, tmp_path: Path) -> None:
    with lock_run(tmp_path):
        (tmp_path / LOCK).write_bytes(content)
        assert who_trains(tmp_path) == "a process that its lock file does not name"
    assert who_trains(tmp_path) is None


def test_a_folder_that_was_moved_or_made_anew_is_not_written_to(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def move() -> None:
        run.rename(tmp_path / "moved")

    with pytest.raises(RunFolderError, match="was deleted, moved or replaced while a training wrote to it"):
        model().fit(TEXT, folder=run, progress=During(move))
    assert not run.exists()
    model().fit(TEXT, folder=tmp_path / "moved", progress=False)  # what was saved goes on where it is now

    def replace() -> None:
        run.rename(tmp_path / "away")
        run.mkdir()

    with pytest.raises(RunFolderError, match="was deleted, moved or replaced"):
        model().fit(TEXT, folder=run, progress=During(replace))
    assert not any(run.iterdir())


def test_without_locks_trainings_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellwise.tasks.training.run_lock._locking", lambda: None)  # as on Windows
    model().fit(TEXT, folder=tmp_path / "windows", progress=False)
    assert CharacterModel.load(tmp_path / "windows").evaluate() > 0

    def refuse(descriptor: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(
        "cellwise.tasks.training.run_lock._locking", lambda: refuse
    )  # as some network file systems
    model().fit(TEXT, folder=tmp_path / "network", progress=False)
    assert CharacterModel.load(tmp_path / "network").evaluate() > 0


def test_of_trainings_at_once_one_trains_and_the_others_are_told(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_run_lock as t\n"
        "from pathlib import Path\nfrom cellwise.tasks.errors import RunFolderError\n"
        f"try: t.model(30).fit(t.TEXT, folder=Path({str(tmp_path / 'run')!r}), progress=False)\n"
        "except RunFolderError as error: sys.exit(str(error))\n"
    )
    started = time.monotonic()
    processes = [
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) for _ in "123"
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    ended = [process.returncode for process in processes]
    assert ended.count(0) == 1, (said, time.monotonic() - started)
    assert all("another training is in" in each or "holds a finished run" in each for each in said if each)
    assert CharacterModel.load(tmp_path / "run").evaluate() > 0
