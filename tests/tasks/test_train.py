"""The training loop: a resumed run ends in the same bits, a kill costs an epoch at most, the averages are
averages."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from regression import SETTINGS, Line, assert_same_bits, run
from safetensors.torch import load_file
from torch import Tensor

from cellwise.tasks.errors import TrainingError, TrainingInterrupted
from cellwise.tasks.training.history import Epoch
from cellwise.tasks.training.loop import TrainSettings, train
from cellwise.tasks.training.progress import Silent
from cellwise.tasks.training.run_folder import RunFolder


def test_it_learns_and_keeps_the_best_weights() -> None:
    trained, line = run(None, TrainSettings(epochs=150, learning_rate=0.02, patience=0))
    best = trained.best.metrics["error"]
    assert trained.epochs[0].metrics["error"] > 10 * best
    line.model.eval()
    assert line.validate()["error"] == pytest.approx(best, rel=1e-6)


def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    with pytest.raises(
        TrainingInterrupted, match=r"stopped in epoch 3; 2 epochs are saved .* resumes from there"
    ):
        run(tmp_path / "parts", line=Line((3, 2), KeyboardInterrupt()))
    torch.manual_seed(99)  # whatever the new process drew before must not matter
    resumed, _ = run(tmp_path / "parts")
    assert resumed.resumed_after == 2
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    assert [(e.loss, e.metrics) for e in whole.epochs] == [(e.loss, e.metrics) for e in resumed.epochs]


def test_with_and_without_a_folder_is_the_same(tmp_path: Path) -> None:
    _, in_memory = run(None)
    _, on_disk = run(tmp_path / "run")
    for name, value in in_memory.model.state_dict().items():
        assert torch.equal(value, on_disk.model.state_dict()[name])


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    line = Line()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(line.model, line, SETTINGS)
    assert torch.equal(torch.rand(3), expected)


def test_kill_loses_at_most_the_epoch_in_progress(tmp_path: Path) -> None:
    script = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nimport regression as t\n"
        "class Slow(t.Line):\n"
        "    def loss(self, batch):\n        time.sleep(0.05)\n        return super().loss(batch)\n"
        f"t.run(Path({str(tmp_path / 'killed')!r}), line=Slow())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    folder = RunFolder(tmp_path / "killed")
    deadline = time.monotonic() + 60
    while not folder.is_started and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    saved = len(folder.read_tensors("last.safetensors").about["epochs"])
    assert 1 <= saved < SETTINGS.epochs
    resumed, _ = run(tmp_path / "killed")
    assert resumed.resumed_after == saved
    run(tmp_path / "whole")
    a, b = (load_file(tmp_path / name / "best.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_early_stopping_waits_for_patience_and_returns_to_the_best() -> None:
    class Scripted(Line):
        values = iter([5.0, 3.0, 4.0, 4.0, 4.0, 1.0])

        def validate(self) -> dict[str, float]:
            return {"error": next(self.values)}

    trained, _ = run(None, TrainSettings(epochs=6, patience=3), Scripted())
    assert trained.stopped_early
    assert [epoch.epoch for epoch in trained.epochs] == [1, 2, 3, 4, 5]
    assert trained.best.epoch == 2


def test_nothing_held_out_means_no_early_stopping() -> None:
    class Unheld(Line):
        def validate(self) -> dict[str, float]:
            return {}

    trained, _ = run(None, TrainSettings(epochs=5, patience=1, learning_rate=0.0), Unheld())
    assert len(trained.epochs) == 5 and not trained.stopped_early
    assert trained.best.epoch == 5  # a low training loss by chance is no reason to go back


def test_a_loss_that_is_not_finite_is_one_sentence() -> None:
    class Broken(Line):
        def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return super().loss(batch) * float("nan")

    with pytest.raises(TrainingError, match="the loss became nan in step 1; lower the learning rate"):
        run(None, line=Broken())


def test_the_rate_rises_then_falls_to_zero_and_depends_on_the_step_only() -> None:
    seen: list[float] = []

    class Watch(Silent):
        def epoch(self, epoch: Epoch, best: Epoch | None) -> None:
            seen.append(epoch.learning_rate)

    line = Line()
    train(line.model, line, TrainSettings(epochs=10, learning_rate=1.0, warmup=4, patience=0), None, Watch())
    assert seen[0] == pytest.approx(0.5 * (1 + math.cos(math.pi * 3 / 40)))
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.01


def test_averaged_weights_follow_the_formula() -> None:
    line = Line()
    snapshots: list[Tensor] = []
    original = line.batches

    def watched(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in original(epoch):
            if epoch > 1 or snapshots or line.fail_at is None:
                snapshots.append(line.model[0].weight.detach().clone())
            yield batch
        snapshots.append(line.model[0].weight.detach().clone())

    line.batches = watched  # type: ignore[method-assign]
    train(line.model, line, TrainSettings(epochs=1, average=0.6, warmup=0, patience=0))
    after_step = snapshots[1:]  # the weights after each of the four steps
    expected = after_step[0]
    for i, weights in enumerate(after_step[1:], start=1):
        decay = min(0.6, 1 - 1 / (i + 1))
        expected = decay * expected + (1 - decay) * weights
    assert torch.allclose(line.model[0].weight, expected, atol=1e-6)
