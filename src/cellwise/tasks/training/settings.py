"""The settings of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cellwise.tasks.errors import OptionError

__all__ = ["TrainSettings"]

_OF_EVERY_TASK = ("epochs", "learning_rate", "weight_decay", "patience", "seed")
_OF_SOME = ("minutes", "accumulate", "device", "autocast")


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a training.

    Schedule: `warmup` optimizer steps of linear rise, then a cosine that falls to zero at the last step. `average`:
    decay of the running mean of the weights, which is validated and kept instead of the weights themselves
    (0 switches it off). `patience`: epochs without a better validation before stopping (0: never). `clip`:
    largest norm of the gradient.

    `minutes`: time limit, validation included; the learning rate falls to zero at its end. `epochs`: most epochs; None,
    which needs `minutes`, sets no limit. A run with a time limit is not reproducible bit for bit.
    `accumulate`: batches per optimizer step. Their gradient is that of the mean over all their terms (see
    `Objective.weight`); an epoch's last step takes the batches that are left.
    `device`: "cpu", "cuda", "cuda:1", "mps" or "auto". `autocast`: compute the loss under torch's bfloat16 autocast;
    weights, gradients and validation keep their precision.
    `goal`: stop once the watched metric is at least as good.

    Raises OptionError for settings under which a training would never end or never begin.
    """

    epochs: int | None = 20
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3
    warmup: int = 50
    average: float = 0.98
    clip: float = 1.0
    patience: int = 6
    seed: int = 0
    minutes: float | None = None
    accumulate: int = 1
    device: str = "cpu"
    autocast: bool = False
    goal: float | None = None

    def __post_init__(self) -> None:
        if self.epochs is None and self.minutes is None:
            raise OptionError("a training needs an end: give epochs, minutes, or both")
        if self.epochs is not None and self.epochs < 1:
            raise OptionError(f"epochs must be at least 1; got {self.epochs}")
        if self.minutes is not None and not self.minutes > 0:
            raise OptionError(f"minutes must be above 0; got {self.minutes:g}")
        if self.accumulate < 1:
            raise OptionError(f"accumulate must be at least 1; got {self.accumulate}")

    @classmethod
    def of(cls, estimator: Any, epochs: int) -> TrainSettings:
        """The settings that an estimator has as options; defaults for the rest.

        epochs: how many suit the data, where the estimator names no number; unlimited with a time limit."""
        names = [*_OF_EVERY_TASK, *(name for name in _OF_SOME if hasattr(estimator, name))]
        given = {name: getattr(estimator, name) for name in names}
        if given["epochs"] is None and given.get("minutes") is None:
            given["epochs"] = epochs
        if given["patience"] is None:
            given["patience"] = cls.patience
        return cls(**given)
