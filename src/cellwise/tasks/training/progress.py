"""Showing a training as it goes: a bar on a terminal, a line per epoch in a log, or nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Epoch", "Lines", "Progress", "Silent", "choose_progress"]


@dataclass(frozen=True)
class Epoch:
    """One epoch of training as it is kept in metrics.csv; validation is None where nothing is held out."""

    epoch: int
    loss: float
    validation: float | None
    learning_rate: float
    seconds: float

    @property
    def measure(self) -> float:
        """What early stopping watches: the validation where there is one, else the training loss."""
        return self.loss if self.validation is None else self.validation


class Progress(Protocol):
    """Told of a training's beginning, each step, each epoch, its end."""

    def start(self, epochs: int, steps: int, done: int) -> None:
        """`epochs` of `steps` steps lie ahead, of which `done` epochs were there already."""

    def step(self, epoch: int, loss: float) -> None:
        """One optimizer step is done."""

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """One epoch is done and saved."""

    def end(self) -> None:
        """Training is over, however it ended."""


class Silent:
    """Shows nothing."""

    def start(self, epochs: int, steps: int, done: int) -> None: ...
    def step(self, epoch: int, loss: float) -> None: ...
    def epoch(self, epoch: Epoch, best: Epoch) -> None: ...
    def end(self) -> None: ...


class Lines:
    """One line per epoch on stderr, for logs."""

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Remember how many epochs there may be."""
        self._epochs = epochs

    def step(self, epoch: int, loss: float) -> None: ...

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """Print the epoch; a star marks the best so far."""
        held = "" if epoch.validation is None else f"  validation {epoch.validation:.4f}"
        star = " *" if epoch.epoch == best.epoch else ""
        text = (
            f"epoch {epoch.epoch:>3}/{self._epochs}  loss {epoch.loss:.4f}{held}  {epoch.seconds:.1f} s{star}"
        )
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None: ...


class Bar:
    """A bar over all steps with loss, validation and the time left (at most: training may stop early)."""

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Draw the bar."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._epochs, self._held = epochs, ""
        self._bar: Any = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left at most"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task("training", total=epochs * steps, completed=done * steps, numbers="")

    def step(self, epoch: int, loss: float) -> None:
        """Move on by one step."""
        numbers = f"loss {loss:.4f}{self._held}"
        self._bar.update(self._task, advance=1, description=f"epoch {epoch}/{self._epochs}", numbers=numbers)

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """Show the validation beside the best one."""
        if epoch.validation is not None:
            self._held = f", validation {epoch.validation:.4f}, best {best.measure:.4f}"

    def end(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def choose_progress(show: bool | Progress | None, *, log: bool = False) -> Progress:
    """A bar on a terminal; elsewhere lines if `log`, else nothing. `show` True or False decides by itself, and what
    shows a training is taken as it is."""
    if show is not None and not isinstance(show, bool):
        return show
    if show is False:
        return Silent()
    if sys.stderr.isatty():
        return Bar()
    return Lines() if log or show else Silent()
