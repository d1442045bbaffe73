"""Training one small network on one task at one lag, until it has learned it or its updates are used up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cellwise.cells.base import Cell
from cellwise.experiments.initialization import add_forget_bias
from cellwise.experiments.memory_tasks import Task
from cellwise.nn import Recurrent
from cellwise.runtime.outputs import first_of
from cellwise.tasks.errors import TrainingError
from cellwise.tasks.training.history import Epoch
from cellwise.tasks.training.loop import TrainSettings, train
from cellwise.tasks.training.objective import Objective
from cellwise.tasks.training.progress import Silent

__all__ = ["MemoryNetwork", "MemoryTraining", "TrialResult", "learn"]

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class MemoryTraining:
    """How to train: one update for every `batch` fresh sequences, at most `updates`.

    clip: the largest norm of the gradient, None for no clipping. goal: the share of right answers, on `judged` fresh
    sequences, at which training ends; it is looked at every `every` updates.
    """

    updates: int = 1000
    learning_rate: float = 1e-2
    batch: int = 64
    clip: float | None = 1.0
    goal: float = 0.95
    judged: int = 512
    every: int = 25
    seed: int = 0


@dataclass(frozen=True)
class TrialResult:
    """What came of a training. `gradients` are the norms of the weights' gradient at each update, before clipping;
    `diverged`: the loss was not finite, and training ended there."""

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
        backend: str = "auto",
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.recurrent = Recurrent(cell, task.input_size, hidden_size, backend=backend)
            self.answer = nn.Linear(hidden_size, task.output_size)
        if bias:
            add_forget_bias(self.recurrent, bias)

    def forward(self, x: Tensor) -> Tensor:
        """From inputs (T, B, D) to an answer after every step (T, B, O)."""
        outputs, _ = self.recurrent(x)
        return self.answer(first_of(outputs))


class MemoryObjective(Objective[Batch]):
    """Fresh sequences of a task at one lag, for every update and every validation.

    An epoch ends where the share of right answers is measured.
    """

    metric = "right"
    higher_is_better = True

    def __init__(self, network: MemoryNetwork, task: Task, lag: int, settings: MemoryTraining) -> None:
        self._network, self._task, self._lag, self._settings = network, task, lag, settings
        self._judge = torch.Generator().manual_seed(settings.seed + 1_000_003)
        self.squared_norms: list[float] = []
        """Of the gradient of all weights, before clipping, one for each update; summed up by `add_gradient`."""

    @property
    def steps(self) -> int:
        return min(self._settings.every, self._settings.updates)

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self._settings.seed + 1_000_033 * epoch)
        for _ in range(self.steps):
            yield self._task.draw(self._lag, self._settings.batch, generator)

    def loss(self, batch: Batch) -> Tensor:
        x, targets = batch
        self.squared_norms.append(0.0)
        return self._task.loss(self._network(x), targets)

    def validate(self) -> Mapping[str, float]:
        x, targets = self._task.draw(self._lag, self._settings.judged, self._judge)
        return {self.metric: self._task.right(self._network(x), targets)}

    def add_gradient(self, parameter: Tensor) -> None:
        """The hook that is called when the gradient of a parameter is complete."""
        assert parameter.grad is not None
        self.squared_norms[-1] += float(parameter.grad.square().sum())


class _Reporting(Silent):
    """Hands on the updates done and the share of right answers."""

    def __init__(self, steps: int, report: Callable[[int, float], None]) -> None:
        self._steps, self._report = steps, report

    def epoch(self, epoch: Epoch, best: Epoch | None) -> None:
        self._report(epoch.epoch * self._steps, epoch.metrics[MemoryObjective.metric])


def learn(
    network: MemoryNetwork,
    task: Task,
    lag: int,
    settings: MemoryTraining,
    report: Callable[[int, float], None] = lambda updates, right: None,
) -> TrialResult:
    """Train the network in place; it ends with the weights that were right most often.

    `report` is called with the updates done and the share of right answers.
    """
    objective = MemoryObjective(network, task, lag, settings)
    hooks = [each.register_post_accumulate_grad_hook(objective.add_gradient) for each in network.parameters()]
    try:
        history = train(
            network, objective, _loop_settings(settings, objective.steps),
            progress=_Reporting(objective.steps, report),
        )  # fmt: skip
    except TrainingError:
        return TrialResult(False, len(objective.squared_norms), 0.0, _norms(objective), diverged=True)
    finally:
        for hook in hooks:
            hook.remove()
    last = history.epochs[-1]
    right = last.metrics[objective.metric]
    return TrialResult(right >= settings.goal, last.epoch * objective.steps, right, _norms(objective))


def _loop_settings(settings: MemoryTraining, steps: int) -> TrainSettings:
    """Adam and the cosine alone: averaged weights, decay and warm-up would blur what is compared."""
    return TrainSettings(
        epochs=settings.updates // steps,
        learning_rate=settings.learning_rate,
        weight_decay=0.0,
        warmup=0,
        average=0.0,
        clip=math.inf if settings.clip is None else settings.clip,
        patience=0,
        seed=settings.seed,
        goal=settings.goal,
    )


def _norms(objective: MemoryObjective) -> tuple[float, ...]:
    """The norm of the gradient at each update, as far as it was finite."""
    norms = (math.sqrt(square) for square in objective.squared_norms)
    return tuple(norm for norm in norms if math.isfinite(norm))
