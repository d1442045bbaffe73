"""Errors that every task may raise."""

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
    "WorseThanSimpleWarning",
]


class TaskError(CellwiseError):
    """Base class of the errors of tasks."""


class DataError(TaskError):
    """The data cannot be used: no such file, a missing column, a text that is too short, ..."""


class OptionError(TaskError):
    """An option has an invalid value."""


class NotFittedError(TaskError):
    """An estimator was used before `fit`."""


class TrainingError(TaskError):
    """Training cannot continue: the loss is not finite, or there are no batches."""


class RunFolderError(TaskError):
    """A run folder is damaged, finished already, of another task, or not a run folder."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during training. Its text says what is saved and how to resume.

    `status`: the exit status of a command that it ends, 130 or 143."""

    def __init__(self, text: str = "", number: int = signal.SIGINT) -> None:
        super().__init__(text)
        self.number = number

    @property
    def status(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + self.number


class ReportWarning(CellwiseWarning):
    """A run is finished, but its report could not be written. The text says why, and how to retry."""


class WorseThanSimpleWarning(CellwiseWarning):
    """A model errs much more than a simple method on what it never saw. The text says than which, and what to do."""
