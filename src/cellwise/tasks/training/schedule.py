"""Progress of a training, in steps and in time, and the learning rate as a function of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from cellwise.tasks.training.settings import TrainSettings

__all__ = ["Schedule", "Stopwatch"]

FIRST_RESERVE = 0.1  # of the budget, for a validation that was not timed yet


@dataclass
class Stopwatch:
    """Elapsed seconds of a training, with those before it was resumed.

    `validation` is the longest time that a validation took. A fake `clock` makes tests exact."""

    clock: Callable[[], float]
    before: float = 0.0
    validation: float = 0.0
    _started: float = field(default=0.0, repr=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def seconds(self) -> float:
        """Elapsed seconds."""
        return self.before + self.clock() - self._started


@dataclass(frozen=True)
class Schedule:
    """The learning rate over `epochs` times `steps` optimizer steps, or over `minutes`, whichever ends first."""

    settings: TrainSettings
    steps: int

    @property
    def budget(self) -> float | None:
        """Seconds; None if only the epochs are limited."""
        return None if self.settings.minutes is None else 60 * self.settings.minutes

    def progress(self, step: int, seconds: float, validation: float) -> float:
        """The share of the training that is over, from 0 to 1, before step `step`, counted from 0 over the whole run.

        With a time limit the steps end early enough for a last validation."""
        epochs, budget = self.settings.epochs, self.budget
        by_steps = 0.0 if epochs is None else step / (epochs * self.steps)
        if budget is None:
            return by_steps
        room = budget - (validation or FIRST_RESERVE * budget)
        return max(by_steps, min(1.0, seconds / room) if room > 0 else 1.0)

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of a step."""
        warmup = self.settings.warmup
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        return self.settings.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * progress))

    def is_time_up(self, seconds: float, validation: float) -> bool:
        """Whether no further step fits into the time limit."""
        return self.budget is not None and self.progress(0, seconds, validation) >= 1
