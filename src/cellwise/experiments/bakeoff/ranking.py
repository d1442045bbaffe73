"""What the runs of a comparison come to: means and spreads, ranks on each problem, and the mean of the ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median

from cellwise.experiments.bakeoff.problems import PROBLEMS
from cellwise.experiments.bakeoff.record import Run
from cellwise.tasks.comparing.spread import Sample

__all__ = ["Result", "Standing", "Table", "table_of"]


@dataclass(frozen=True)
class Result:
    """One cell on one problem: its runs, one a seed. rank: 1 is the best; equal cells share the mean of their ranks."""

    runs: tuple[Run, ...]
    rank: float = 0.0

    @property
    def scores(self) -> list[float]:
        """Those of the trainings that came to an end."""
        return [run.score for run in self.runs if run.score is not None]

    @property
    def diverged(self) -> int:
        """How many trainings had a loss that was no finite number."""
        return len(self.runs) - len(self.scores)

    @property
    def sample(self) -> Sample | None:
        """Mean and spread over seeds, of the trainings that came to an end; None if none did."""
        return Sample(self.scores) if self.scores else None

    @property
    def text(self) -> str:
        """Mean and spread of the seeds, and how many diverged."""
        sample = self.sample
        if sample is None:
            return "diverged"
        spread = "" if sample.spread is None else f" ± {sample.spread:.2g}"
        diverged = f" ({self.diverged} diverged)" if self.diverged else ""
        return f"{sample.mean:.3g}{spread}{diverged}"

    def ranked_as(self, worst: float) -> float:
        """The mean that it is ranked by: a training that diverged counts as the worst of all that did not."""
        return fmean([*self.scores, *[worst] * self.diverged])


@dataclass(frozen=True)
class Standing:
    """One cell over all problems, those that are not measured left out."""

    cell: str
    results: dict[str, Result]

    @property
    def runs(self) -> list[Run]:
        return [run for result in self.results.values() for run in result.runs]

    @property
    def mean_rank(self) -> float:
        """Over the problems that it was trained on."""
        return fmean(result.rank for result in self.results.values())

    @property
    def milliseconds(self) -> float:
        """Processor time of an update: the mean over problems of the median over seeds."""
        times = [
            median(1000 * run.seconds / max(1, run.updates) for run in each.runs)
            for each in self.results.values()
        ]
        return fmean(times)

    @property
    def seeds(self) -> str:
        """How many seeds it had on a problem: "3", or "2 to 3"."""
        counts = sorted({len(result.runs) for result in self.results.values()})
        return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


@dataclass(frozen=True)
class Table:
    """All cells, the best mean rank first; those that lack a problem others have come after all that lack none."""

    problems: tuple[str, ...]
    standings: tuple[Standing, ...]

    @cached_property
    def by_cell(self) -> dict[str, Standing]:
        return {each.cell: each for each in self.standings}

    def is_whole(self, standing: Standing) -> bool:
        """Whether the cell was trained on every problem."""
        return len(standing.results) == len(self.problems)


def table_of(runs: Sequence[Run]) -> Table:
    """Rank the cells of some runs."""
    present = {run.problem for run in runs}
    problems = tuple(name for name in PROBLEMS if name in present)
    ranked = {name: _ranked([run for run in runs if run.problem == name]) for name in problems}
    cells = dict.fromkeys(run.cell for run in runs)
    standings = [
        Standing(cell, {name: ranked[name][cell] for name in problems if cell in ranked[name]})
        for cell in cells
    ]
    standings = [each for each in standings if each.results]
    order = sorted(standings, key=lambda each: (len(each.results) < len(problems), each.mean_rank, each.cell))
    return Table(problems, tuple(order))


def _ranked(runs: Sequence[Run]) -> dict[str, Result]:
    """The results of one problem, by cell, with their ranks."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.cell, []).append(run)
    results = {cell: Result(tuple(sorted(each, key=lambda run: run.seed))) for cell, each in found.items()}
    worst = max((score for each in results.values() for score in each.scores), default=0.0)
    means = {cell: each.ranked_as(worst) if each.scores else float("inf") for cell, each in results.items()}
    return {cell: Result(each.runs, _rank(means[cell], means.values())) for cell, each in results.items()}


def _rank(value: float, others: Iterable[float]) -> float:
    """1 and how many are better, and half of those that are as good.

    >>> [_rank(value, [1.0, 2.0, 2.0, 5.0]) for value in (1.0, 2.0, 5.0)]
    [1.0, 2.5, 4.0]
    """
    every = list(others)
    better, equal = sum(each < value for each in every), sum(each == value for each in every)
    return 1 + better + (equal - 1) / 2
