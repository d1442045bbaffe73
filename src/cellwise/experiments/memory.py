"""The search for the longest lag that each cell learns.

Every contender trains with the same budget of updates, at lags that grow, until all of its seeds fail at one, the lags
are over, or the time is. All contenders have the same hidden size or, if asked, as near as can be the same number of
recurrent parameters. What is learned depends on the seed alone; how far the search comes, also on the time it has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Protocol

from cellwise import cells
from cellwise.cells.base import Cell
from cellwise.experiments.checks import check_at_least, check_names
from cellwise.experiments.memory_tasks import TASKS, MemoryTaskError, Task, task_of
from cellwise.experiments.sizes import nearest_size
from cellwise.experiments.training import MemoryNetwork, MemoryTraining, TrialResult, learn
from cellwise.tasks.training.loop import torch_threads
from cellwise.understand.complexity import complexity
from cellwise.understand.gates import carry_gates

__all__ = ["Contender", "MemorySettings", "MemoryStudy", "Trial", "Watch", "hidden_size_for", "study_memory"]

LAGS = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Contender:
    """A cell that takes part, and what is added to the bias of its gates that keep. Shown as "lstm" or "lstm+1"."""

    cell: Cell
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.bias):
            raise MemoryTaskError(f"'{self}' asks for a bias that is no finite number.")
        if self.bias and not carry_gates(self.cell.graph):
            raise MemoryTaskError(
                f"'{self}' asks for a bias on the gate that keeps the state, but {self.cell.name} has no such gate; "
                f"take {self.cell.name} alone."
            )

    def __str__(self) -> str:
        return f"{self.cell.name}{self.bias:+g}" if self.bias else self.cell.name


@dataclass(frozen=True)
class MemorySettings:
    """How to search. `same`: "units" gives all the same hidden size, "parameters" the number that a GRU of that size
    has. `minutes` limits the time, None for no limit."""

    tasks: tuple[str, ...] = tuple(TASKS)
    lags: tuple[int, ...] = LAGS
    updates: int = 1000
    hidden_size: int = 32
    seeds: int = 2
    same: str = "units"
    minutes: float | None = 5.0
    backend: str = "auto"

    def __post_init__(self) -> None:
        check_at_least(self, MemoryTaskError, updates=1, hidden_size=1, seeds=1)
        for task in self.tasks:
            shortest = task_of(task).shortest
            if min(self.lags, default=0) < shortest:
                raise MemoryTaskError(
                    f"The lags of the task {task} begin at {shortest}; got {min(self.lags, default='none')}."
                )
        if tuple(sorted(set(self.lags))) != self.lags:
            raise MemoryTaskError(
                f"The lags must grow from one to the next; got {', '.join(map(str, self.lags))}."
            )
        if self.same not in ("units", "parameters"):
            raise MemoryTaskError(
                f"What is the same for all cells is either units or parameters; got '{self.same}'."
            )
        if self.minutes is not None and not self.minutes > 0:
            raise MemoryTaskError(
                f"The minutes must be more than 0; got {self.minutes:g}. None, or --minutes 0, is no limit."
            )


@dataclass(frozen=True)
class Trial:
    """One contender on one task at one lag: for each seed the share of right answers and the updates it took."""

    task: str
    lag: int
    cell: str
    solved: tuple[bool, ...]
    right: tuple[float, ...]
    updates: tuple[int, ...]
    seconds: float

    @property
    def solvers(self) -> int:
        return sum(self.solved)

    @property
    def typical_updates(self) -> int | None:
        """The median of the updates of the seeds that learned it."""
        taken = [count for count, solved in zip(self.updates, self.solved, strict=True) if solved]
        return round(median(taken)) if taken else None


@dataclass(frozen=True)
class MemoryStudy:
    """All trials. `ended` says why the search was over: "done", "time" or "stopped"."""

    settings: MemorySettings
    cells: tuple[str, ...]
    hidden_sizes: dict[str, int]
    parameters: dict[str, int]
    trials: tuple[Trial, ...] = ()
    ended: str = "done"
    seconds: float = 0.0

    def find(self, task: str, cell: str) -> tuple[Trial, ...]:
        """The trials of one cell on one task, by growing lag."""
        return tuple(trial for trial in self.trials if (trial.task, trial.cell) == (task, cell))

    def longest(self, task: str, cell: str) -> int | None:
        """The longest lag that at least one seed learned; None if none did, or nothing was tried."""
        return max((trial.lag for trial in self.find(task, cell) if trial.solvers), default=None)

    def at_end_of_lags(self, task: str, cell: str) -> bool:
        """Whether the cell still learned the last lag there was, so that its limit lies beyond."""
        return self.longest(task, cell) == self.settings.lags[-1]

    def cut_short(self, task: str, cell: str) -> bool:
        """Whether the search was over before this cell failed or the lags ended."""
        trials = self.find(task, cell)
        return not trials or bool(trials[-1].solvers and trials[-1].lag < self.settings.lags[-1])


class Watch(Protocol):
    """Told how the search goes."""

    def update(self, what: str, done: int, right: float) -> None:
        """`done` updates of the training `what` are done; so many answers are right."""

    def trial(self, trial: Trial) -> None:
        """All seeds of one cell at one lag are done."""


class _Unwatched:
    def update(self, what: str, done: int, right: float) -> None: ...
    def trial(self, trial: Trial) -> None: ...


class _TimeOverError(Exception):
    """The minutes are used up; the trial at work is left out."""


def study_memory(
    contenders: Sequence[Contender], settings: MemorySettings, watch: Watch | None = None
) -> MemoryStudy:
    """Search; Ctrl-C ends it early, and what is finished is returned.

    Raises:
        MemoryTaskError: a setting cannot be, or two cells have one name.

    >>> from cellwise import cells
    >>> settings = MemorySettings(tasks=("parity",), lags=(2,), updates=300, hidden_size=8, seeds=1)
    >>> study_memory([Contender(cells.get("gru"))], settings).longest("parity", "gru")
    2
    """
    names = [str(each) for each in contenders]
    check_names(names, MemoryTaskError)
    sizes = {str(each): hidden_size_for(each.cell, settings) for each in contenders}
    parameters = {str(each): _parameters(each.cell, sizes[str(each)]) for each in contenders}
    study = MemoryStudy(settings, tuple(names), sizes, parameters)
    watch = watch or _Unwatched()
    begin = time.monotonic()
    trials: list[Trial] = []
    ended = "done"
    try:
        # One thread: these networks are too small for a second one to help.
        with torch_threads(1):
            for trial in _trials(contenders, study, watch, begin):
                trials.append(trial)
                watch.trial(trial)
    except _TimeOverError:
        ended = "time"
    except KeyboardInterrupt:
        ended = "stopped"
    return replace(study, trials=tuple(trials), ended=ended, seconds=time.monotonic() - begin)


def _trials(
    contenders: Sequence[Contender], study: MemoryStudy, watch: Watch, begin: float
) -> Iterator[Trial]:
    """Lag by lag through all tasks and cells, so that the end of the time finds all of them equally far."""
    alive = {(task, each): True for task in study.settings.tasks for each in contenders}
    for lag in study.settings.lags:
        for task, contender in alive:
            if alive[task, contender]:
                trial = _trial(contender, TASKS[task], lag, study, watch, begin)
                alive[task, contender] = trial.solvers > 0
                yield trial


def _trial(
    contender: Contender, task: Task, lag: int, study: MemoryStudy, watch: Watch, begin: float
) -> Trial:
    settings, start = study.settings, time.monotonic()

    def report(what: str, updates: int, right: float) -> None:
        if settings.minutes is not None and time.monotonic() - begin > 60 * settings.minutes:
            raise _TimeOverError
        watch.update(what, updates, right)

    done: list[TrialResult] = []
    for seed in range(settings.seeds):
        what = f"{task.name} at lag {lag}: {contender}, seed {seed}"
        size = study.hidden_sizes[str(contender)]
        network = MemoryNetwork(contender.cell, task, size, seed, contender.bias, settings.backend)
        training = MemoryTraining(updates=settings.updates, seed=seed)
        done.append(learn(network, task, lag, training, partial(report, what)))
    return Trial(
        task.name,
        lag,
        str(contender),
        tuple(each.solved for each in done),
        tuple(each.right for each in done),
        tuple(each.updates for each in done),
        time.monotonic() - start,
    )


def hidden_size_for(cell: Cell, settings: MemorySettings) -> int:
    """The hidden size that a cell gets: the one asked for, or that with nearest as many parameters as a GRU has."""
    if settings.same == "units":
        return settings.hidden_size
    return nearest_size(partial(_parameters, cell), _parameters(cells.get("gru"), settings.hidden_size))


def _parameters(cell: Cell, hidden_size: int) -> int:
    """Parameters of one layer for inputs of the size of recall's."""
    return complexity(cell).parameters.at(d=TASKS["recall"].input_size, h=hidden_size)
