"""Showing a search as it goes: a line a trial."""

from __future__ import annotations

import sys
from typing import Protocol

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
        self._is_live, self._width = sys.stderr.isatty(), 0

    def start(self, done: int) -> None:
        """Say what need not be done again."""
        if done:
            print(f"going on after {done} trial{'s' * (done != 1)}", file=sys.stderr, flush=True)

    def epoch(self, number: int, epoch: int, epochs: int, value: float) -> None:
        """Show where the trial is, where that can be wiped out again."""
        if self._is_live:
            self._show(f"trial {number:>3}  epoch {epoch}/{epochs}  {value:.4g}")

    def trial(self, trial: Trial, tuned: Tuned) -> None:
        """Print the trial; a star marks the best so far."""
        self.end()
        print(trial_line(trial, tuned), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Wipe out what is no whole line."""
        if self._width:
            self._show("")
            print("\r", end="", file=sys.stderr, flush=True)
            self._width = 0

    def _show(self, text: str) -> None:
        print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
        self._width = max(self._width, len(text))


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
