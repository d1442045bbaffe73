"""Progress of a training: a bar on a terminal, a line per epoch in a log, or nothing."""

from __future__ import annotations

import math
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from cellwise.tasks.training.history import Epoch

__all__ = ["Bar", "Lines", "Progress", "Silent", "choose_progress"]

# Columns of a terminal: from WIDE on there is room for a bar, from MEDIUM on for the time left.
WIDE, MEDIUM = 100, 60


class Progress(Protocol):
    """Callbacks at the start of a training, after each step and epoch, and at the end."""

    def start(
        self, epochs: int | None, steps: int, done: int, seconds: float | None = None, stage: str = ""
    ) -> None:
        """The training has `epochs` epochs of `steps` steps; `done` steps are done already.

        seconds: what is left of the time limit, if there is one; only then may `epochs` be None. stage: the name of a
        stage that continues a training ("refit"), for which everything here is called once more."""

    def step(self, epoch: int, loss: float) -> None:
        """One optimizer step is done."""

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """One epoch is done and saved."""

    def end(self) -> None:
        """Training is over, however it ended."""


class Silent:
    """Shows nothing."""

    def start(
        self, epochs: int | None, steps: int, done: int, seconds: float | None = None, stage: str = ""
    ) -> None: ...
    def step(self, epoch: int, loss: float) -> None: ...
    def epoch(self, epoch: Epoch, best: Epoch) -> None: ...
    def end(self) -> None: ...


class Lines:
    """One line per epoch on stderr, for logs."""

    def start(
        self, epochs: int | None, steps: int, done: int, seconds: float | None = None, stage: str = ""
    ) -> None:
        """Remember how many epochs there may be."""
        self._of, self._noun = _of(epochs), stage or "epoch"

    def step(self, epoch: int, loss: float) -> None: ...

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """Print the epoch; a star marks the best so far."""
        held = "".join(f"  {_words(name)} {value:.4f}" for name, value in epoch.metrics.items())
        star = " *" if epoch.epoch == best.epoch else ""
        text = f"{self._noun} {epoch.epoch:>3}{self._of}  loss {epoch.loss:.4f}{held}  {epoch.seconds:.1f} s{star}"
        print(text, file=sys.stderr, flush=True)

    def end(self) -> None: ...


class Bar:
    """One line for the whole training: a bar, loss, metric, and the time left (at most: training may stop early).

    On a narrow terminal parts are left out, the bar first; none is cut short."""

    def start(
        self, epochs: int | None, steps: int, done: int, seconds: float | None = None, stage: str = ""
    ) -> None:
        """Draw the bar. Its columns are those that the terminal has room for now."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._of, self._noun, self._held = _of(epochs), stage or "epoch", ("", "", "")
        self._began, self._seconds = time.monotonic(), seconds
        self._done, self._total = done, math.inf if epochs is None else epochs * steps
        self._console = Console(stderr=True)
        columns: list[Any] = [TextColumn("{task.description}"), TaskProgressColumn()]
        numbers = TextColumn("{task.fields[numbers]}", markup=False)
        if self._console.width >= WIDE:
            columns.insert(1, BarColumn())
            columns += [numbers, TimeElapsedColumn(), TextColumn("left at most"), TimeRemainingColumn()]
            self._taken = 45
        elif self._console.width >= MEDIUM:
            columns += [numbers, TimeRemainingColumn(), TextColumn("left")]
            self._taken = 20
        else:
            columns += [numbers]
            self._taken = 6
        self._bar: Any = RichProgress(*columns, console=self._console)
        self._bar.start()
        self._task = self._bar.add_task(stage or "training", total=1.0, numbers="")
        self._bar.update(self._task, completed=self._share())

    def step(self, epoch: int, loss: float) -> None:
        """Move on by one step."""
        self._done += 1
        self._draw(epoch, loss)

    def epoch(self, epoch: Epoch, best: Epoch) -> None:
        """Show the watched metric, the first, beside its best value."""
        for name, value in islice(epoch.metrics.items(), 1):
            self._held = _words(name), f"{value:.4f}", f"{best.metrics[name]:.4f}"
        self._draw(epoch.epoch, epoch.loss)

    def _draw(self, epoch: int, loss: float) -> None:
        about = f"{self._noun} {epoch}{self._of}"
        numbers = self._numbers(loss, self._console.width - self._taken - len(about))
        self._bar.update(self._task, completed=self._share(), description=about, numbers=numbers)

    def _numbers(self, loss: float, room: int) -> str:
        """As many of the numbers as there is room for."""
        name, value, best = self._held
        if not value:
            return f"loss {loss:.4f}"
        forms = (
            f"loss {loss:.4f}, {name} {value}, best {best}",
            f"{name} {value}, best {best}",
            f"{value}, best {best}",
        )
        return next((form for form in forms if len(form) <= room), value)

    def _share(self) -> float:
        """The share of the steps or of the time that is over, whichever is larger."""
        over = time.monotonic() - self._began
        by_time = over / self._seconds if self._seconds else float(self._seconds is not None)
        return max(self._done / self._total, min(1.0, by_time))

    def end(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def _of(epochs: int | None) -> str:
    return "" if epochs is None else f"/{epochs}"


def _words(name: str) -> str:
    """The name of a metric for people: `bits_per_character` as three words."""
    return name.replace("_", " ")


def choose_progress(show: bool | Progress | None, *, log: bool = False) -> Progress:
    """A bar on a terminal; elsewhere lines if `log`, else nothing. `show` overrides this: True shows, False does not,
    and a Progress is returned as it is."""
    if show is not None and not isinstance(show, bool):
        return show
    if show is False:
        return Silent()
    if sys.stderr.isatty():
        return Bar()
    return Lines() if log or show else Silent()
