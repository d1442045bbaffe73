"""The mistakes that any task can name."""

from __future__ import annotations

import signal

from cellwise.errors import CellwiseError, CellwiseWarning

__all__ = [
    "DataError",
    "NotFittedError",
    "OptionError",
    "ReportWarning",
    "RunFolderError",
    "TaskError",
    "TrainingError",
    "TrainingInterrupted",
]


class TaskError(CellwiseError):
    """Base of what can go wrong in any task."""


class DataError(TaskError):
    """The data as given cannot be used: no such file, a missing column, a text that is too short, ..."""


class OptionError(TaskError):
    """An option has a value that makes no sense."""


class NotFittedError(TaskError):
    """Something was asked of an estimator that has learned nothing yet."""


class TrainingError(TaskError):
    """Training cannot go on: a loss that is not finite, no batches."""


class RunFolderError(TaskError):
    """A run folder is damaged, finished, of another task, or no run folder at all."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during training. Its text says what is saved and how to go on.

    `status`: what a command that it ends leaves with, 130 or 143."""

    def __init__(self, text: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number

    @property
    def status(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + self.number


class ReportWarning(CellwiseWarning):
    """A run is finished, but its report could not be made. The text says why, and how to make it again."""
