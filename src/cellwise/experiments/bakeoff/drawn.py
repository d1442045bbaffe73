"""Recall and adding: sequences that are drawn anew for every update."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cellwise.experiments.bakeoff.problem import AnswerProblem, Batch
from cellwise.experiments.memory_tasks import Adding, Recall, Task

__all__ = ["AddingProblem", "RecallProblem"]


class _Drawn(AnswerProblem):
    """A task of memory at one lag; what is measured are 1,024 sequences that are drawn once."""

    task: Task
    lag: int
    judged = 1024

    @property
    def input_size(self) -> int:
        return self.task.input_size

    @property
    def output_size(self) -> int:
        return self.task.output_size

    def draw(self, generator: torch.Generator) -> Batch:
        return self.task.draw(self.lag, self.batch, generator)

    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        return self.task.loss(answers, targets)

    @cached_property
    def judge(self) -> Batch:
        return self.task.draw(self.lag, self.judged, torch.Generator().manual_seed(2_000_003))

    @property
    def _settings(self) -> dict[str, Any]:
        sizes = {"inputs": self.input_size, "outputs": self.output_size, "last": self.last}
        return {"lag": self.lag, "judged": self.judged, **sizes}


class _ThreeOfEight(Recall):
    """Recall with more symbols than `cellwise memory` asks for."""

    symbols = 3
    alphabet = 8
    chance = 1 / alphabet
    input_size = alphabet + 1
    output_size = alphabet


class RecallProblem(_Drawn):
    """Copy memory: symbols are shown, silence follows, and they are to be named in their order."""

    name = "recall"
    measure = "share of symbols named wrong"
    sign = "wrong"
    simple = "guess"
    learning_rate = 1e-2
    task = _ThreeOfEight()
    lag = 12
    last = _ThreeOfEight.symbols
    about = f"name three symbols of eight in their order, each {lag} steps after it was shown"

    def score(self, network: Any) -> float:
        x, targets = self.judge
        return float((network(x).argmax(-1) != targets).float().mean())

    def simple_score(self) -> float:
        return 1 - self.task.chance


class AddingProblem(_Drawn):
    """The sum of the two marked numbers of a sequence."""

    name = "adding"
    measure = "mean squared error of the sum"
    sign = "squared error"
    simple = "always the mean"
    learning_rate = 1e-2
    task = Adding()
    lag = 30
    about = f"add the two marked numbers of {lag}"

    def score(self, network: Any) -> float:
        x, targets = self.judge
        return float((network(x)[-1, :, 0] - targets).square().mean())

    def simple_score(self) -> float:
        return float(self.judge[1].var(correction=0))
