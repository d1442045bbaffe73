"""The record of a training: its epochs, with named metrics, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cellwise.tasks.training.run_folder import LAST, RunFolder

__all__ = ["RESERVED", "Epoch", "History", "Watch", "read_history", "watch_of"]

RESERVED = ("epoch", "loss", "learning_rate", "seconds", "stage")  # the other columns of metrics.csv
_FORMERLY = "validation"  # how the one metric of earlier versions was called; lower was better


@dataclass(frozen=True)
class Epoch:
    """One epoch: `loss` is the mean over its batches, `metrics` those on what was held out (empty if nothing was),
    `learning_rate` that of its last step."""

    epoch: int
    loss: float
    metrics: Mapping[str, float]
    learning_rate: float
    seconds: float

    @property
    def row(self) -> dict[str, float]:
        """Its row in metrics.csv."""
        return {
            "epoch": self.epoch,
            "loss": self.loss,
            **self.metrics,
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Watch:
    """The metric that decides which epoch is the best. A value that is no number is worse than every other.

    keeps_best: whether it decides; else the last epoch is the best."""

    metric: str
    higher_is_better: bool = False
    keeps_best: bool = True

    def value(self, epoch: Epoch) -> float | None:
        """The metric's value; None if nothing was held out."""
        return epoch.metrics[self.metric] if epoch.metrics else None

    def best(self, epochs: Sequence[Epoch]) -> Epoch:
        """The best epoch, the first of equals; the last one where nothing was held out, for a lower training loss
        proves nothing."""
        return min(epochs, key=self._rank) if epochs[-1].metrics and self.keeps_best else epochs[-1]

    def reaches(self, epoch: Epoch, goal: float) -> bool:
        """Whether an epoch is as good as a goal, or better."""
        value = self.value(epoch)
        return value is not None and (value >= goal if self.higher_is_better else value <= goal)

    def _rank(self, epoch: Epoch) -> float:
        value = self.value(epoch)
        if value is None or math.isnan(value):
            return math.inf
        return -value if self.higher_is_better else value


@dataclass(frozen=True)
class History:
    """What came of a training. The model then holds the weights of the `best` epoch."""

    epochs: tuple[Epoch, ...]
    watch: Watch
    stopped_early: bool = False
    resumed_after: int = 0

    @property
    def best(self) -> Epoch:
        """The epoch whose weights were kept."""
        return self.watch.best(self.epochs)


def epoch_records(epochs: Sequence[Epoch], watch: Watch) -> dict[str, Any]:
    """The record as it is kept in last.safetensors, JSON-able."""
    return {"epochs": [asdict(epoch) | {"metrics": dict(epoch.metrics)} for epoch in epochs], **asdict(watch)}


def watch_of(about: Mapping[str, Any]) -> Watch:
    """The metric that a saved training watched. Raises ValueError if none is named."""
    metric = about.get("metric", _FORMERLY)
    how = about.get("higher_is_better", False), about.get("keeps_best", True)
    if not isinstance(metric, str) or not all(isinstance(each, bool) for each in how):
        raise ValueError("no metric is named")
    return Watch(metric, *how)


def epochs_of(about: Mapping[str, Any], watch: Watch) -> list[Epoch]:
    """The saved epochs, numbered from 1. Raises ValueError, KeyError or TypeError if they are none.

    In records of earlier versions the one metric has no name of its own: it is called `watch.metric`."""
    epochs = [_epoch_of(record, watch) for record in about["epochs"]]
    for number, epoch in enumerate(epochs, 1):
        values = list(epoch.row.values())
        if epoch.epoch != number or not all(type(value) in (int, float) for value in values):
            raise ValueError(f"record {number} is none of an epoch")
        if epoch.metrics.keys() != epochs[0].metrics.keys() or (
            epoch.metrics and watch.metric not in epoch.metrics
        ):
            raise ValueError(f"record {number} has other metrics")
    return epochs


def _epoch_of(record: Mapping[str, Any], watch: Watch) -> Epoch:
    fields = dict(record)
    if _FORMERLY in fields:
        formerly = fields.pop(_FORMERLY)
        fields["metrics"] = {} if formerly is None else {watch.metric: formerly}
    return Epoch(**fields)


def read_history(folder: RunFolder) -> History | None:
    """What a run has saved of its epochs; None for one that was saved after its training, or before its first epoch
    was over. Raises RunFolderError."""
    if not folder.is_started:
        return None
    about = folder.read_tensors(LAST).about

    def read() -> History:
        watch = watch_of(about)
        return History(tuple(epochs_of(about, watch)), watch)

    history = folder.guarded(f"{LAST} has no epochs", read)
    return history if history.epochs else None
