"""What a task supplies to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cellwise.tasks.errors import TrainingError
from cellwise.tasks.training.device import moved

__all__ = ["Objective"]

Batch = TypeVar("Batch")


class Objective(ABC, Generic[Batch]):
    """The batches of a task, the loss of one, and the metrics on what was held out.

    A task implements `steps`, `batches`, `loss` and `validate`, and names in `metric` the metric that decides which
    epoch is the best. `weight` matters for batches of different sizes, `share` for several processes.
    Costly work on a batch (reading recordings, say) belongs in `loss`, not in `batches`: every process iterates over
    all batches, but computes the loss of its own share only.
    """

    metric: str = ""
    """The name, among those of `validate`, of the metric that decides which epoch is the best."""
    higher_is_better: bool = False
    """Whether a higher value of that metric is better."""
    keeps_best: bool = True
    """Whether the weights of the best epoch are kept, and a training that gets no better ends early. Else the
    schedule is followed to its end, and its last weights are kept."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Batches in an epoch."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterable[Batch]:
        """The batches of an epoch: a pure function of the epoch's number (the first is 1)."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """A scalar to minimise: a mean over `weight(batch)` terms."""

    @abstractmethod
    def validate(self) -> Mapping[str, float]:
        """The metrics of the model, as it stands, on what was held out; empty if nothing was."""

    def weight(self, batch: Batch) -> float:
        """How many terms (examples, tokens, known targets) `loss(batch)` is the mean of.

        Losses of several batches, or of several shares of one, are averaged with these weights."""
        return 1.0

    def share(self, batch: Batch, rank: int, world: int) -> Batch | None:
        """The part of a batch that process `rank` of `world` computes; None if too little is left for this one.

        The parts together hold every example exactly once. Raises TrainingError for a task that cannot be split."""
        raise TrainingError(
            f"{type(self).__name__} does not support several processes; start it without torchrun"
        )

    def to(self, batch: Batch, device: torch.device) -> Batch:
        """The batch on another device; by default every tensor in it, at any depth of tuples, lists, dicts and
        dataclasses."""
        return moved(batch, device)
