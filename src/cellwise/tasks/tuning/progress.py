"""Showing a search as it goes: a line a trial."""

from __future__ import annotations

import sys
from typing import Protocol

from cellwise.tasks.training.live_line import LiveLine
from cellwise.tasks.tuning.trial import DONE, FAILED, Trial, Tuned

__all__ = ["TrialLines", "TuneProgress", "choose_progress", "trial_line"]


class TuneProgress(Protocol):
    """Told of a search's beginning, each epoch of a trial, each trial, its end."""

    def start(self, done: int) -> None:
        """So many trials were there already."""

    def epoch(self, number: int, epoch: int, epochs: int, value: float) -> None:
        """Trial `number` has done an epoch, of at most `epochs`, after which the metric is `value`."""

    def trial(self, trial: Trial, tuned: Tuned) -> None:
        """A trial is over and saved; `tuned` is all so far, this one included."""

    def end(self) -> None:
        """The search is over, however it ended."""


class Silent:
    """Shows nothing."""

    def start(self, done: int) -> None: ...
    def epoch(self, number: int, epoch: int, epochs: int, value: float) -> None: ...
    def trial(self, trial: Trial, tuned: Tuned) -> None: ...
    def end(self) -> None: ...


class TrialLines:
    """One line a trial on stderr; on a terminal the epochs pass by in the line of the trial to come."""

    def __init__(self) -> None:
        self._line = LiveLine()

    def start(self, done: int) -> None:
        """Say what need not be done again."""
        if done:
            self._line.keep(f"going on after {done} trial{'s' * (done != 1)}")

    def epoch(self, number: int, epoch: int, epochs: int, value: float) -> None:
        """Show where the trial is."""
        self._line.show(f"trial {number:>3}  epoch {epoch}/{epochs}  {value:.4g}")

    def trial(self, trial: Trial, tuned: Tuned) -> None:
        """Print the trial; a star marks the best so far."""
        self._line.keep(trial_line(trial, tuned))

    def end(self) -> None:
        """Wipe out what is no whole line."""
        self._line.wipe()


def trial_line(trial: Trial, tuned: Tuned) -> str:
    """A trial in a line."""
    count = len(trial.epochs)
    epochs = f"{count} epoch{'s' * (count != 1)}"
    if trial.state == FAILED:
        told = f"failed: {trial.problem}"
    elif trial.state == DONE:
        told = f"{tuned.metric.replace('_', ' ')} {trial.value:.4g}  {epochs}  {trial.seconds:.1f} s"
    else:
        told = f"given up after {epochs}  {trial.seconds:.1f} s"
    ranked = tuned.ranked
    star = " *" if ranked and ranked[0].number == trial.number else ""
    start = "  the settings as given" if trial.number == 0 and trial.state == DONE else ""
    return f"trial {trial.number:>3}  {told}{star}{start}"


def choose_progress(show: bool | TuneProgress | None) -> TuneProgress:
    """Lines on a terminal, else nothing; True or False decides, and what shows a search is taken as it is."""
    if show is not None and not isinstance(show, bool):
        return show
    return TrialLines() if show or (show is None and sys.stderr.isatty()) else Silent()
