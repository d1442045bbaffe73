"""The comparison: every cell on every problem with every seed, at equal parameters and equal updates or equal time.

The hidden size of a cell is the one at which its network has nearest as many parameters as asked for, problem by
problem. All cells have the first seed before any has the second, so that a comparison that ends early is a fair one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from cellwise._version import __version__
from cellwise.bench.machine import describe
from cellwise.cells.base import Cell
from cellwise.errors import CellwiseError
from cellwise.experiments.bakeoff.problems import PROBLEMS, BakeoffError, Problem, problem_of
from cellwise.experiments.bakeoff.record import Record, Run, own_record
from cellwise.experiments.bakeoff.training import Budget, Outcome, train_one
from cellwise.experiments.checks import check_at_least, check_names
from cellwise.experiments.sizes import nearest_size
from cellwise.tasks.training.digests import json_digest
from cellwise.tasks.training.loading import store_cells
from cellwise.tasks.training.loop import torch_threads

__all__ = ["Bakeoff", "BakeoffSettings", "Job", "Watch", "compare_cells"]

MOST_PARAMETERS = 10_000_000
REPORTED = 0.5  # seconds between two reports of one training


@dataclass(frozen=True)
class BakeoffSettings:
    """What is compared, and what every training is given.

    parameters: of the whole network. updates, or seconds of processor time where they are given: of each training.
    learning_rate: None for that of each problem. minutes: no training begins after so many, None for no limit.
    """

    problems: tuple[str, ...] = tuple(PROBLEMS)
    parameters: int = 5000
    updates: int = 500
    seconds: float | None = None
    seeds: int = 1
    learning_rate: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        check_at_least(self, BakeoffError, parameters=1, updates=1, seeds=1)
        if self.parameters > MOST_PARAMETERS:
            raise BakeoffError(
                f"The parameters must be at most {MOST_PARAMETERS:,}; got {self.parameters:,}."
            )
        for name in self.problems:
            problem_of(name)
        for name in ("seconds", "learning_rate", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise BakeoffError(f"The {name.replace('_', ' ')} must be more than 0; got {value:g}.")

    @property
    def budget(self) -> Budget:
        return Budget(self.updates, self.seconds)


@dataclass(frozen=True)
class Job:
    """One training that is to be done: all of its run that is known before."""

    problem: Problem
    cell: Cell
    seed: int
    settings: BakeoffSettings
    processor: str = ""

    @property
    def learning_rate(self) -> float:
        rate = self.settings.learning_rate
        return self.problem.learning_rate if rate is None else rate

    @property
    def key(self) -> tuple[str, str, int]:
        """As that of its run."""
        return self.problem.name, self.cell.name, self.seed

    @property
    def hidden_size(self) -> int:
        return _sized(self.problem, self.cell, self.settings.parameters)[0]

    def run(self, outcome: Outcome) -> Run:
        """The run that it has become."""
        settings = self.settings
        size, parameters = _sized(self.problem, self.cell, settings.parameters)
        return Run(
            problem=self.problem.name,
            cell=self.cell.name,
            seed=self.seed,
            score=outcome.score,
            updates=outcome.updates,
            seconds=outcome.seconds,
            hidden_size=size,
            parameters=parameters,
            parameter_budget=settings.parameters,
            update_budget=settings.updates if settings.seconds is None else None,
            second_budget=settings.seconds,
            learning_rate=self.learning_rate,
            definition=_definition(self.problem, self.cell),
            cellwise=__version__,
            processor=self.processor,
        )

    @property
    def expected(self) -> Run:
        """A run of it, but for what came of it."""
        return self.run(Outcome(None, 0, 0.0))

    def __str__(self) -> str:
        return f"{self.problem.name}: {self.cell.name}, seed {self.seed}"


@cache
def _sized(problem: Problem, cell: Cell, wanted: int) -> tuple[int, int]:
    """The hidden size with nearest as many parameters as wanted, and how many it has."""
    count = problem.parameters(cell)
    size = nearest_size(count, wanted)
    return size, count(size)


@cache
def _definition(problem: Problem, cell: Cell) -> str:
    """A digest of all that is trained but for the budget: the problem, and the cell's equations."""
    equations = {key: value for key, value in store_cells([cell]).items() if key != "about"}
    return json_digest({"problem": problem.settings, "cell": equations})[:16]


@dataclass(frozen=True)
class Bakeoff:
    """What there is of a comparison. `runs`: of the file, those of other cells included. `left_out`: cell -> why it
    takes no part. `ended`: "done", "time" or "stopped"; `missing`: trainings that were asked for and are not done."""

    runs: tuple[Run, ...]
    left_out: dict[str, str]
    ended: str = "done"
    missing: int = 0
    status: int = 0
    """Exit status of a command that was stopped."""


class Watch(Protocol):
    """Told how the comparison goes."""

    def start(self, done: int, total: int) -> None:
        """So many trainings of `total` are there already."""

    def update(self, job: Job, updates: int) -> None:
        """A training has done so many updates."""

    def run(self, run: Run) -> None:
        """A training is over and saved."""


class _Unwatched:
    def start(self, done: int, total: int) -> None: ...
    def update(self, job: Job, updates: int) -> None: ...
    def run(self, run: Run) -> None: ...


def compare_cells(
    cells: Sequence[Cell],
    settings: BakeoffSettings,
    folder: Path,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Bakeoff:
    """Compare, going on with what the folder's `runs.csv` holds. Ctrl-C ends it early; what is finished is returned.

    overwrite: forget first what it holds of these cells on these problems.

    Raises:
        BakeoffError: a setting cannot be, two cells have one name, or the folder has runs with other settings.
        RunFolderError: another process works in the folder.
    """
    names = [cell.name for cell in cells]
    check_names(names, BakeoffError)
    left_out = {cell.name: why for cell in cells if (why := _why_not(cell, settings))}
    if len(left_out) == len(cells):
        raise BakeoffError(" ".join(left_out.values()))
    with own_record(folder) as record, torch_threads(1):
        if overwrite:
            record.forget(names, settings.problems)
        jobs = list(_jobs([cell for cell in cells if cell.name not in left_out], settings))
        _check_settings(record, jobs, folder)
        done = {run.key for run in record.runs}
        jobs = [job for job in jobs if job.key not in done]
        ended, status = _train(jobs, record, settings, watch or _Unwatched())
        done = {run.key for run in record.runs}
        missing = sum(job.key not in done for job in jobs)
        return Bakeoff(tuple(record.runs), left_out, ended, missing, status)


def _jobs(cells: Sequence[Cell], settings: BakeoffSettings) -> Iterator[Job]:
    processor = describe()["processor"]
    for seed in range(settings.seeds):
        for name in settings.problems:
            for cell in cells:
                yield Job(problem_of(name), cell, seed, settings, processor)


def _why_not(cell: Cell, settings: BakeoffSettings) -> str:
    """Why a cell takes no part; empty if it does. It must have what it is to be, and run, on every problem."""
    if isinstance(cell.inputs, tuple) and cell.inputs:
        return f"{cell.name} needs {', '.join(cell.inputs)} beside x, which these problems do not have."
    for name in settings.problems:
        job = Job(problem_of(name), cell, 0, settings)
        try:
            job.problem.network(cell, job.hidden_size, 0)
        except CellwiseError as error:
            return f"{cell.name} cannot be trained on {name}: {error}"
    return ""


def _check_settings(record: Record, jobs: Sequence[Job], folder: Path) -> None:
    """Raise BakeoffError unless all runs of the file were given what these trainings are given."""
    by_key, one = {job.key: job for job in jobs}, jobs[0].expected
    for run in record.runs:
        # What is not asked for now belongs to the same table, and must have had the same budget.
        job = by_key.get(run.key)
        difference = run.differs(job.expected) if job else run.budget_differs(one)
        if difference:
            raise BakeoffError(
                f"{folder} holds a comparison with {difference}; go on as it was, choose another folder with --out, or "
                "forget the runs of these cells with --overwrite."
            )


def _train(jobs: Sequence[Job], record: Record, settings: BakeoffSettings, watch: Watch) -> tuple[str, int]:
    """Train one after another; how it ended, and the exit status for it."""
    begin = time.monotonic()
    watch.start(len(record.runs), len(record.runs) + len(jobs))
    try:
        for job in jobs:
            if settings.minutes is not None and time.monotonic() - begin > 60 * settings.minutes:
                return "time", 0
            run = job.run(_trained(job, watch))
            record.add(run)
            watch.run(run)
    except KeyboardInterrupt as stop:
        return "stopped", getattr(stop, "status", 130)
    return "done", 0


def _trained(job: Job, watch: Watch) -> Outcome:
    reported = 0.0

    def report(updates: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if now - reported > REPORTED:
            reported = now
            watch.update(job, updates)

    return train_one(
        job.problem, job.cell, job.hidden_size, job.seed, job.settings.budget, job.learning_rate, report
    )
