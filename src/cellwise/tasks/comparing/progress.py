"""Showing a comparison as it goes: a line a training."""

from __future__ import annotations

import sys
from typing import Protocol

from cellwise.tasks.comparing.result import ComparisonRun
from cellwise.tasks.training.history import Epoch
from cellwise.tasks.training.live_line import LiveLine

__all__ = ["CompareProgress", "RunLines", "Silent", "choose_progress"]


class CompareProgress(Protocol):
    """Told of a comparison's beginning, each epoch of a training, each training, its end."""

    def start(self, done: int, total: int) -> None:
        """So many trainings of `total` are there already."""

    def epoch(self, candidate: str, seed: int, epoch: Epoch) -> None:
        """A training has done an epoch."""

    def run(self, run: ComparisonRun, metric: str) -> None:
        """A training is over, measured and saved; `metric` ranks."""

    def end(self) -> None:
        """The comparison is over, however it ended."""


class Silent:
    """Shows nothing."""

    def start(self, done: int, total: int) -> None: ...
    def epoch(self, candidate: str, seed: int, epoch: Epoch) -> None: ...
    def run(self, run: ComparisonRun, metric: str) -> None: ...
    def end(self) -> None: ...


class RunLines:
    """One line a training on stderr; on a terminal the epochs pass by in the line of the one to come."""

    def __init__(self) -> None:
        self._line = LiveLine()
        self._number = self._total = 0

    def start(self, done: int, total: int) -> None:
        """Say what need not be done again."""
        self._number, self._total = done, total
        if done:
            self._line.keep(f"going on after {done} of {total} trainings")

    def epoch(self, candidate: str, seed: int, epoch: Epoch) -> None:
        """Show where the training is."""
        self._line.show(f"{self._number + 1}/{self._total}  {candidate}, seed {seed}  epoch {epoch.epoch}")

    def run(self, run: ComparisonRun, metric: str) -> None:
        """Print the training."""
        self._number += 1
        told = f"failed: {run.problem}"
        if not run.problem:
            epochs = f"{run.epochs} epoch{'s' * (run.epochs != 1)}"
            told = f"{metric.replace('_', ' ')} {run.metrics[metric]:.4g}  {epochs}  {run.seconds:.1f} s"
        self._line.keep(f"{self._number}/{self._total}  {run.candidate}, seed {run.seed}  {told}")

    def end(self) -> None:
        """Wipe out what is no whole line."""
        self._line.wipe()


def choose_progress(show: bool | CompareProgress | None) -> CompareProgress:
    """Lines on a terminal, else nothing; True or False decides, and what shows a comparison is taken as it is."""
    if show is not None and not isinstance(show, bool):
        return show
    return RunLines() if show or (show is None and sys.stderr.isatty()) else Silent()
