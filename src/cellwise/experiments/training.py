"""Training one small network on one task at one lag, until it has solved it or its updates are used up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cellwise.cells.base import Cell
from cellwise.experiments.initialization import keep_more
from cellwise.experiments.memory_tasks import Task
from cellwise.nn import Recurrent

__all__ = ["Learned", "Learning", "MemoryNetwork", "learn"]


@dataclass(frozen=True)
class Learning:
    """How to train: Adam (Kingma and Ba 2015), one update for every `batch` fresh sequences.

    clip: the largest norm of the gradient, None for no clipping. solved: the share of right answers, on `judged` fresh
    sequences, at which training ends; it is looked at every `every` updates.
    """

    updates: int = 1000
    learning_rate: float = 1e-2
    batch: int = 64
    clip: float | None = 1.0
    solved: float = 0.95
    judged: int = 512
    every: int = 25
    seed: int = 0


@dataclass(frozen=True)
class Learned:
    """What came of a training. `gradients` are the norms of the weights' gradient at each update, before clipping;
    `diverged`: one of them was not finite, and training ended there."""

    solved: bool
    updates: int
    right: float
    gradients: tuple[float, ...]
    diverged: bool = False


class MemoryNetwork(nn.Module):
    """A recurrent layer and a linear map from its output to the answer. `bias` is added to the gates that keep.

    Equal seeds give equal weights; torch's global generator is left as it was.
    """

    def __init__(
        self,
        cell: str | type[Cell] | Cell,
        task: Task,
        hidden_size: int,
        seed: int = 0,
        bias: float = 0.0,
        backend: str = "cpu",
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.recurrent = Recurrent(cell, task.input_size, hidden_size, backend=backend)
            self.answer = nn.Linear(hidden_size, task.output_size)
        if bias:
            keep_more(self.recurrent, bias)

    def forward(self, x: Tensor) -> Tensor:
        """From inputs (T, B, D) to an answer after every step (T, B, O)."""
        outputs, _ = self.recurrent(x)
        return self.answer(outputs)


def learn(
    network: MemoryNetwork,
    task: Task,
    lag: int,
    settings: Learning,
    report: Callable[[int, float], None] = lambda update, right: None,
) -> Learned:
    """Train the network in place. `report` is called with the updates done and the share of right answers."""
    generator = torch.Generator().manual_seed(settings.seed)
    judge = torch.Generator().manual_seed(settings.seed + 1_000_003)
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    gradients: list[float] = []
    right = 0.0
    for update in range(1, settings.updates + 1):
        x, targets = task.draw(lag, settings.batch, generator)
        optimizer.zero_grad()
        task.loss(network(x), targets).backward()
        size = float(
            nn.utils.clip_grad_norm_(parameters, math.inf if settings.clip is None else settings.clip)
        )
        if not math.isfinite(size):
            return Learned(False, update, right, tuple(gradients), diverged=True)
        gradients.append(size)
        optimizer.step()
        if update % settings.every == 0 or update == settings.updates:
            right = _judge(network, task, lag, settings.judged, judge)
            report(update, right)
            if right >= settings.solved:
                break
    return Learned(right >= settings.solved, update, right, tuple(gradients))


@torch.no_grad()
def _judge(network: MemoryNetwork, task: Task, lag: int, count: int, generator: torch.Generator) -> float:
    x, targets = task.draw(lag, count, generator)
    return task.right(network(x), targets)
