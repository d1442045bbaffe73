"""Several processes train as one does: the same weights, one run folder, and they end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from regression import assert_same_bits
from safetensors.torch import load_file

from cellwise.tasks.training.run_folder import LAST, RunFolder

WORK = Path(__file__).parent / "processes_work.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LIMIT = 240  # seconds; a hanging process fails the test


def start(*command: str, cwd: Path | None = None, alone: bool = False) -> subprocess.Popen[str]:
    launcher = [sys.executable] if alone else TORCHRUN
    return subprocess.Popen(
        [*launcher, *command],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit status, what it wrote on stdout, and on stderr."""
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return process.returncode, out, err


def work(name: str, folder: Path, alone: bool = False) -> tuple[int, str, str]:
    folder.mkdir(exist_ok=True)
    return end(start(str(WORK), name, str(folder), alone=alone))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of the same work, by one process and by two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    for folder, alone in ((one, True), (two, False)):
        status, _, err = work("weights", folder, alone)
        assert status == 0, err
    return one, two


@pytest.mark.parametrize("name", ["line", "unused", "text", "streams"])
def test_two_processes_end_with_the_weights_of_one(name: str, both: tuple[Path, Path]) -> None:
    one = load_file(both[0] / f"{name} 0.safetensors")
    first, second = (load_file(both[1] / f"{name} {rank}.safetensors") for rank in (0, 1))
    for key, value in one.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["line", "text", "streams"])
def test_two_processes_leave_one_run(name: str, both: tuple[Path, Path]) -> None:
    folders = [each / name for each in both]
    names = [{path.name for path in folder.iterdir()} for folder in folders]
    assert names[0] == names[1]
    rows = [(folder / "metrics.csv").read_text().splitlines() for folder in folders]
    assert rows[0][0] == rows[1][0] and len(rows[0]) == len(rows[1])
    for one, two in zip(rows[0][1:], rows[1][1:], strict=True):
        figures = [[float(value) for value in row.split(",")[:4]] for row in (one, two)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-4)


def series() -> pandas.DataFrame:
    step, generator = np.arange(90), np.random.default_rng(0)
    frames = []
    for i in range(5):
        y = 20 + 5 * np.sin(step / 7 * 2 * np.pi) + generator.normal(size=90)
        y[generator.integers(5, 80, 12)] = np.nan  # shares of a batch have different numbers of known targets
        times = pandas.date_range("2020-01-01", periods=90)
        frames.append(pandas.DataFrame({"unique_id": f"s{i}", "ds": times, "y": y}))
    return pandas.concat(frames)


def test_the_command_under_torchrun(tmp_path: Path) -> None:
    series().to_csv(tmp_path / "series.csv", index=False)
    fit = ["-m", "cellwise", "forecast", "fit", "series.csv", "-H", "3", "--hidden-size", "4"]
    fit += ["--epochs", "2", "--dropout", "0", "--out"]
    for alone, out in ((True, "one"), (False, "two")):
        status, _, err = end(start(*fit, out, cwd=tmp_path, alone=alone))
        assert status == 0, err
        assert err.count("epoch   1/2") == err.count("refit   1/1") == 1  # one of them shows the training
    for name in ("best.safetensors", "final.safetensors"):
        one, two = (load_file(tmp_path / run / name) for run in ("one", "two"))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6)
    assert RunFolder(tmp_path / "two").summary()["epochs"] == 2


def test_a_process_that_fails_ends_the_others_with_a_word(tmp_path: Path) -> None:
    status, _, err = work("fail", tmp_path)
    assert status != 0, err
    assert (tmp_path / "error 1").read_text() == "ValueError: row 7 is broken"
    said = (tmp_path / "error 0").read_text()
    assert said == "TrainingError: process 1 of this training failed: row 7 is broken"


def test_a_process_that_dies_ends_the_others(tmp_path: Path) -> None:
    before = time.monotonic()
    status, _, err = work("vanish", tmp_path)
    assert status != 0, err
    assert time.monotonic() - before < LIMIT / 2
    said = tmp_path / "error 0"  # torchrun may have ended it before it could say so
    if said.exists():
        assert "another process of this training has ended without a word" in said.read_text()


def interrupted(number: signal.Signals, folder: Path) -> int:
    """Interrupt a training of two processes in its third epoch; returns how many epochs are saved."""
    process = start(str(WORK), "slow", str(folder))
    assert process.stdout is not None
    for line in process.stdout:
        if line == "step 3\n":
            break
    process.send_signal(number)  # torchrun passes it on to both
    status, out, _ = end(process)
    assert status != 0
    assert "stopped in epoch" in out and "the same command resumes from there" in out
    about = RunFolder(folder / "run").read_tensors(LAST).about
    assert 2 <= len(about["epochs"]) < 6
    return len(about["epochs"])


def test_two_processes_stop_together_and_go_on_to_the_same_bits(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    saved = interrupted(signal.SIGTERM, tmp_path)
    status, out, err = work("quick", tmp_path)
    assert status == 0, err
    assert out.splitlines().count(f"done {saved}") == 2
    assert_same_bits(tmp_path / "run", both[1] / "whole")


def test_ctrl_c_stops_both(tmp_path: Path) -> None:
    interrupted(signal.SIGINT, tmp_path)
