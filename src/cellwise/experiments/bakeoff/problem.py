"""What a problem is that cells are compared on: networks, what they are trained with, and what is measured of them.

Shapes: T steps, B sequences, D inputs, O answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cellwise.cells.base import Cell
from cellwise.errors import CellwiseError
from cellwise.experiments.bakeoff.networks import AnswerNetwork
from cellwise.tasks.training.objective import Objective
from cellwise.understand.complexity import complexity

__all__ = ["AnswerProblem", "BakeoffError", "Batch", "Problem"]

Batch = tuple[Tensor, Tensor]


class BakeoffError(CellwiseError, ValueError):
    """A comparison of cells that cannot be run as asked."""


class Problem(ABC):
    """One problem. `measure` is what is measured, in words; `sign` the same on an axis."""

    name: ClassVar[str]
    about: ClassVar[str]
    measure: ClassVar[str]
    sign: ClassVar[str]
    simple: ClassVar[str]
    """The simple method that stands beside the cells, in words."""
    learning_rate: ClassVar[float]
    last = 1
    batch = 32

    @property
    @abstractmethod
    def input_size(self) -> int: ...

    @property
    @abstractmethod
    def output_size(self) -> int: ...

    def parameters(self, cell: Cell) -> Callable[[int], int]:
        """Parameters of the whole network by its hidden size: those of the layer and of what is around it."""
        layer = complexity(cell).parameters
        return lambda size: layer.at(d=self.input_size, h=size) + self.around(size)

    def around(self, hidden_size: int) -> int:
        """Parameters beside those of the layer."""
        return (hidden_size + 1) * self.output_size

    @abstractmethod
    def network(self, cell: Cell, hidden_size: int, seed: int) -> nn.Module:
        """A network that begins at the weights of the seed."""

    @abstractmethod
    def objective(self, network: Any, steps: int, seed: int) -> Objective[Any]:
        """What the network is trained with, in epochs of so many steps; nothing is held out in training."""

    @abstractmethod
    def score(self, network: Any) -> float:
        """The measure of a network in evaluation mode."""

    @abstractmethod
    def simple_score(self) -> float:
        """The measure of the simple method."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that the measure of a cell depends on, besides what the comparison itself is asked for; JSON-able."""
        return {"name": self.name, "batch": self.batch, **self._settings}

    @property
    @abstractmethod
    def _settings(self) -> dict[str, Any]: ...


class AnswerProblem(Problem):
    """A problem whose batches are inputs (T, B, D) and targets, and whose network answers at the last steps."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Batch:
        """A batch to learn from."""

    @abstractmethod
    def loss(self, answers: Tensor, targets: Tensor) -> Tensor:
        """The loss of answers (last, B, O)."""

    def network(self, cell: Cell, hidden_size: int, seed: int) -> nn.Module:
        return AnswerNetwork(cell, self.input_size, hidden_size, self.output_size, self.last, seed)

    def objective(self, network: Any, steps: int, seed: int) -> Objective[Any]:
        return _Answering(network, self, steps, seed)


class _Answering(Objective[Batch]):
    """Batches of a function, answers of a network, the loss of both."""

    metric = "loss"

    def __init__(self, network: nn.Module, problem: AnswerProblem, steps: int, seed: int) -> None:
        self._network, self._problem, self._steps, self._seed = network, problem, steps, seed

    @property
    def steps(self) -> int:
        return self._steps

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        return (self._problem.draw(generator) for _ in range(self._steps))

    def loss(self, batch: Batch) -> Tensor:
        x, targets = batch
        return self._problem.loss(self._network(x), targets)

    def validate(self) -> Mapping[str, float]:
        return {}
