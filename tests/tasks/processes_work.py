"""What the processes of test_processes.py do: python processes_work.py WORK FOLDER, alone or under torchrun."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from regression import SETTINGS, Line
from safetensors.torch import save_file
from torch import Tensor, nn

from cellwise.tasks import CharacterModel, LanguageModel
from cellwise.tasks.errors import TrainingError, TrainingInterrupted
from cellwise.tasks.training import loop
from cellwise.tasks.training.distributed import join
from cellwise.tasks.training.history import History
from cellwise.tasks.training.loop import TrainSettings, train
from cellwise.tasks.training.progress import Silent
from cellwise.tasks.training.run_folder import own_run

SIZES = (16, 7, 1, 12, 5)  # of one row no share is left for a second process
TEXT = "the quick brown fox jumps over the lazy dog. " * 40


def say(line: str) -> None:
    """One write, so that lines of two processes do not mix."""
    os.write(1, f"{line}\n".encode())


class Told(Silent):
    def __init__(self, rest: float) -> None:
        self.rest = rest

    def step(self, epoch: int, loss: float) -> None:
        say(f"step {epoch}")
        time.sleep(self.rest)


class Unused(Line):
    """With a weight that no gradient reaches, and one that the gradient of some shares does not."""

    def __init__(self) -> None:
        super().__init__(sizes=SIZES, dropout=0.0)
        self.model.register_parameter("idle", nn.Parameter(torch.ones(2)))
        self.model.register_parameter("odd", nn.Parameter(torch.zeros(1)))

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = super().loss(batch)
        marked = batch[1] > 2.5
        return loss + marked.float().mean() * (self.model.odd - 1).square().sum() if marked.any() else loss


class Gone(Line):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.calls = rank, 0

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.calls += 1
        if self.rank == 1 and self.calls == 5:
            os._exit(1)
        return super().loss(batch)


def line_in(folder: Path, line: Line, rest: float = 0.0, settings: TrainSettings = SETTINGS) -> History:
    with own_run(folder, "line", {}, "data") as run:
        return train(line.model, line, settings, run, Told(rest))


def weights(folder: Path) -> None:
    """Train all that can be split, and keep the weights of every process."""
    rank = join(torch.device("cpu")).rank
    line = Line(sizes=SIZES, dropout=0.0)
    line_in(folder / "whole", Line())
    line_in(folder / "line", line, settings=TrainSettings(epochs=4, warmup=2, patience=1, accumulate=2))
    save_file(line.model.state_dict(), folder / f"line {rank}.safetensors")
    unused = Unused()
    train(unused.model, unused, TrainSettings(epochs=2, warmup=0, weight_decay=0.5))
    save_file(unused.model.state_dict(), folder / f"unused {rank}.safetensors")
    model = CharacterModel("gru", embedding_size=3, hidden_size=5, epochs=2, length=32, batch_size=3)
    model.fit(TEXT, folder=folder / "text", progress=False)
    save_file(model.network_.state_dict(), folder / f"text {rank}.safetensors")
    # Each process has its own streams of the text, and carries on their states.
    streams = LanguageModel(
        "gru", embedding_size=3, hidden_size=5, epochs=2, length=16, batch_size=3, dropout=0.0
    )
    streams.fit(TEXT, folder=folder / "streams", progress=False)
    save_file(streams.network_.state_dict(), folder / f"streams {rank}.safetensors")


def fail(folder: Path) -> None:
    rank = join(torch.device("cpu")).rank
    line = Line((2, 1), ValueError("row 7 is broken") if rank == 1 else None)
    try:
        line_in(folder / "run", line)
    except (ValueError, TrainingError) as error:
        (folder / f"error {rank}").write_text(f"{type(error).__name__}: {error}")
        raise


def vanish(folder: Path) -> None:
    """One process dies without a word; the other must not wait for it."""
    rank = join(torch.device("cpu")).rank
    try:
        line_in(folder / "run", Gone(rank))
    except TrainingError as error:
        (folder / f"error {rank}").write_text(f"{type(error).__name__}: {error}")
        raise


def go(folder: Path, rest: float) -> None:
    """A training with dropout that can be interrupted."""
    loop.SAVE_EVERY = 1e9
    try:
        history = line_in(folder / "run", Line(), rest)
    except TrainingInterrupted as stop:
        say(str(stop))
        sys.exit(stop.status)
    say(f"done {history.resumed_after}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    work, place = sys.argv[1], Path(sys.argv[2])
    {
        "weights": lambda: weights(place),
        "fail": lambda: fail(place),
        "vanish": lambda: vanish(place),
        "slow": lambda: go(place, 0.05),
        "quick": lambda: go(place, 0.0),
    }[work]()
