"""A tiny task for tests of the training loop, whose every part can be watched or made to fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cellwise.tasks.training.history import History
from cellwise.tasks.training.loop import TrainSettings, train
from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.run_folder import open_run

SETTINGS = TrainSettings(epochs=6, learning_rate=0.01, warmup=5, patience=0, seed=3)


class Line(Objective[tuple[Tensor, Tensor]]):
    """A regression with dropout, so that randomness inside an epoch matters."""

    metric = "error"
    steps = 4

    def __init__(
        self,
        fail_at: tuple[int, int] | None = None,
        error: BaseException | None = None,
        sizes: tuple[int, ...] = (16, 16, 16, 16),
        dropout: float = 0.3,
    ) -> None:
        torch.manual_seed(11)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(dropout), nn.Linear(8, 1))
        self.fail_at, self.error, self.sizes = fail_at, error, sizes
        self.steps = len(sizes)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        x = torch.randn(sum(self.sizes), 3, generator=torch.Generator().manual_seed(epoch))
        for i, part in enumerate(x.split(self.sizes)):
            if self.fail_at == (epoch, i) and self.error is not None:
                raise self.error
            yield part, part @ torch.tensor([[1.0], [-2.0], [0.5]])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.model(x), y)

    def weight(self, batch: tuple[Tensor, Tensor]) -> float:
        return len(batch[0])

    def share(self, batch: tuple[Tensor, Tensor], rank: int, world: int) -> tuple[Tensor, Tensor] | None:
        x, y = (part[rank::world] for part in batch)
        return (x, y) if len(x) else None

    def validate(self) -> dict[str, float]:
        return {"error": float(self.loss(next(iter(self.batches(999)))).detach())}


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(
    folder: Path | None,
    settings: TrainSettings = SETTINGS,
    line: Line | None = None,
    clock: Clock | None = None,
) -> tuple[History, Line]:
    line = line or Line()
    opened = None if folder is None else open_run(folder, "line", {"seed": 3}, "data")
    return train(line.model, line, settings, opened, clock=clock or Clock()), line


def assert_same_bits(one: Path, other: Path) -> None:
    """Weights, averages and optimizer of two runs."""
    for name in ("best.safetensors", "last.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
