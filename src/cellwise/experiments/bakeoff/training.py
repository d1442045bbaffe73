"""One training of a comparison: a network of one cell on one problem, begun at one seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from cellwise.cells.base import Cell
from cellwise.experiments.bakeoff.problems import Problem
from cellwise.tasks.errors import TrainingError
from cellwise.tasks.training.loop import TrainSettings, train
from cellwise.tasks.training.progress import Silent

__all__ = ["Budget", "Outcome", "train_one"]

WARMUP = 20  # updates in which the learning rate rises
EPOCH = 50  # updates after which a limit of time is looked at


@dataclass(frozen=True)
class Budget:
    """What every training is given: so many updates, or so many seconds of processor time where `seconds` is set."""

    updates: int = 500
    seconds: float | None = None

    @property
    def epoch(self) -> int:
        """Updates between two calls of the loop's own book-keeping."""
        return self.updates if self.seconds is None else EPOCH


@dataclass(frozen=True)
class Outcome:
    """score: the problem's measure, None if the training diverged. seconds: processor time of the training alone."""

    score: float | None
    updates: int
    seconds: float


class _Counting(Silent):
    """Counts the updates, and hands them on now and then."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self.updates, self._report = 0, report

    def step(self, epoch: int, loss: float) -> None:
        self.updates += 1
        self._report(self.updates)


def train_one(
    problem: Problem,
    cell: Cell,
    hidden_size: int,
    seed: int,
    budget: Budget,
    learning_rate: float,
    report: Callable[[int], None] = lambda updates: None,
) -> Outcome:
    """Train and measure. `report` is called after each update.

    A network that is thrown away makes an update first: compiling kernels is no part of the time.

    Raises:
        CellwiseError: the cell cannot be trained on this problem at all.
    """
    network, counting = problem.network(cell, hidden_size, seed), _Counting(report)
    begin = time.process_time()
    try:
        _train(problem, problem.network(cell, hidden_size, seed), Budget(1), learning_rate, seed, Silent())
        begin = time.process_time()
        _train(problem, network, budget, learning_rate, seed, counting)
    except TrainingError:
        return Outcome(None, counting.updates, time.process_time() - begin)
    seconds = time.process_time() - begin
    with torch.no_grad():
        score = problem.score(network)
    return Outcome(score if score < float("inf") else None, counting.updates, seconds)


def _train(
    problem: Problem, network: nn.Module, budget: Budget, learning_rate: float, seed: int, progress: Silent
) -> None:
    objective = problem.objective(network, budget.epoch, seed)
    settings = _settings(budget, learning_rate, seed)
    train(network, objective, settings, progress=progress, clock=time.process_time)


def _settings(budget: Budget, learning_rate: float, seed: int) -> TrainSettings:
    """Adam, a short rise and a cosine: averaged weights, decay and early stopping would blur what is compared."""
    return TrainSettings(
        epochs=1 if budget.seconds is None else None,
        minutes=None if budget.seconds is None else budget.seconds / 60,
        learning_rate=learning_rate,
        weight_decay=0.0,
        warmup=WARMUP,
        average=0.0,
        clip=1.0,
        patience=0,
        seed=seed,
    )
