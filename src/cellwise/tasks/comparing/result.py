"""What a comparison has found, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean, median
from typing import Any

from cellwise.tasks.comparing.spread import Sample, is_difference_shown
from cellwise.tasks.data.optional import require
from cellwise.tasks.report.table import figure

__all__ = ["Comparison", "ComparisonRun", "Row"]

MOST_NAMES = 3  # of candidates in a sentence


@dataclass(frozen=True)
class ComparisonRun:
    """One training of a comparison.

    candidate: the name of its cell and settings. metrics: on what was held out; empty if it failed, with the reason in
    `problem`. seconds: of training, validation included. milliseconds: of one prediction, None if it is not timed."""

    candidate: str
    seed: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    seconds: float = 0.0
    parameters: int = 0
    milliseconds: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Row:
    """One candidate over its seeds, or a simple method (no runs).

    mean, spread: of each metric; the spread is the standard deviation over seeds, None with fewer than two.
    is_behind: whether it is worse than the best by more than seeds explain; None where a spread is missing."""

    name: str
    settings: Mapping[str, Any]
    runs: tuple[ComparisonRun, ...]
    mean: Mapping[str, float]
    spread: Mapping[str, float | None]
    is_best: bool = False
    is_behind: bool | None = None

    @property
    def done(self) -> tuple[ComparisonRun, ...]:
        """The runs that did not fail."""
        return tuple(each for each in self.runs if not each.problem)

    @property
    def seconds(self) -> float | None:
        """Mean seconds of a training."""
        return fmean(each.seconds for each in self.done) if self.done else None

    @property
    def parameters(self) -> int | None:
        """Weights of the network."""
        return self.done[0].parameters if self.done else None

    @property
    def milliseconds(self) -> float | None:
        """Median milliseconds of a prediction."""
        timed = [each.milliseconds for each in self.done if each.milliseconds is not None]
        return median(timed) if timed else None


@dataclass(frozen=True)
class Comparison:
    """What came of a comparison.

    metric: what ranks. candidates: name -> its cell and settings, in the order asked for. runs: in the order in which
    they were trained. others: a simple method's name -> its metrics. words, is_test: what was measured, and whether
    nothing in it was looked at before. prediction: what one prediction is, in words."""

    task: str
    metric: str
    higher_is_better: bool
    candidates: Mapping[str, Mapping[str, Any]]
    runs: tuple[ComparisonRun, ...] = ()
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    words: str = ""
    is_test: bool = False
    prediction: str = ""

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, the one that ranks first."""
        named = next((each.metrics for each in self.runs if each.metrics), {})
        return tuple(sorted(named, key=lambda name: name != self.metric))

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The candidates, the best first and those without a figure last."""
        made = [self._row(name, settings) for name, settings in self.candidates.items()]
        ranked = sorted((each for each in made if each.done), key=self._rank)
        samples = {each.name: self._sample(each.done, self.metric) for each in ranked}
        marked = []
        for index, row in enumerate(ranked):
            behind = is_difference_shown(samples[ranked[0].name], samples[row.name]) if index else False
            marked.append(replace(row, is_best=index == 0, is_behind=behind))
        return (*marked, *(each for each in made if not each.done))

    @cached_property
    def simple(self) -> tuple[Row, ...]:
        """The simple methods, the best first."""
        made = [Row(name, {}, (), metrics, dict.fromkeys(metrics)) for name, metrics in self.others.items()]
        return tuple(sorted(made, key=self._rank))

    @property
    def best(self) -> Row | None:
        """The candidate with the best mean; None if every one failed."""
        return self.rows[0] if self.rows and self.rows[0].done else None

    @property
    def frame(self) -> Any:
        """A polars frame, one row a candidate and simple method. Raises TaskError if polars is not installed."""
        settings = list(dict.fromkeys(name for each in self.candidates.values() for name in each))
        return require("polars").DataFrame(
            [self._record(each, settings) for each in (*self.rows, *self.simple)], infer_schema_length=None
        )

    @property
    def verdict(self) -> tuple[str, ...]:
        """What the figures say, in sentences: who is best, whether by more than chance, beside the simple methods."""
        best = self.best
        if best is None:
            return (f"No training came to a figure; the first: {self.runs[0].problem}.",) if self.runs else ()
        metric = self.metric.replace("_", " ")
        said = [f"{best.name} has the best {metric}, {self.shown(best, self.metric)}{_over(best)}."]
        followers = [each for each in self.rows[1:] if each.done]
        if followers:
            said.append(self._beside(followers))
        if self.simple:
            said.append(self._beside_simple(best))
        return tuple(said)

    def shown(self, row: Row, metric: str) -> str:
        """A metric of a row: its mean, and the spread over seeds."""
        mean, spread = row.mean.get(metric, math.nan), row.spread.get(metric)
        return figure(mean) if spread is None else _with_spread(mean, spread)

    def _beside(self, followers: Sequence[Row]) -> str:
        level = [each.name for each in followers if each.is_behind is False]
        if any(each.is_behind is None for each in followers):
            return "A single seed shows no spread, so any difference may be chance; give more seeds."
        if not level:
            return f"The difference to {followers[0].name}, the next, is more than the spread over seeds explains."
        which = _listed(level)
        return f"The difference to {which} is within the spread over seeds: it does not show which is better."

    def _beside_simple(self, best: Row) -> str:
        other, sample = self.simple[0], self._sample(best.done, self.metric)
        if self._rank(other) <= self._rank(best):
            return f"{other.name}, a simple method, is at {figure(other.mean[self.metric])}: no network is better."
        clear = is_difference_shown(sample, float(other.mean[self.metric]))
        beyond = (
            "" if clear else ", a difference that the spread over seeds may explain" if clear is False else ""
        )
        return f"The best simple method, {other.name}, is at {figure(other.mean[self.metric])}{beyond}."

    def _row(self, name: str, settings: Mapping[str, Any]) -> Row:
        runs = tuple(each for each in self.runs if each.candidate == name)
        done = [each for each in runs if not each.problem]
        samples = {metric: self._sample(done, metric) for metric in self.metrics} if done else {}
        mean = {metric: each.mean for metric, each in samples.items()}
        return Row(name, settings, runs, mean, {metric: each.spread for metric, each in samples.items()})

    def _sample(self, runs: Sequence[ComparisonRun], metric: str) -> Sample:
        return Sample([each.metrics.get(metric, math.nan) for each in runs])

    def _rank(self, row: Row) -> float:
        mean = row.mean.get(self.metric, math.nan)
        return math.inf if math.isnan(mean) else -mean if self.higher_is_better else mean

    def _record(self, row: Row, settings: Sequence[str]) -> dict[str, Any]:
        figures: dict[str, float | None] = {}
        for metric in self.metrics:
            figures |= {metric: row.mean.get(metric), f"{metric} spread": row.spread.get(metric)}
        return {
            "model": row.name,
            **{name: row.settings.get(name) for name in settings},
            "seeds": len(row.done) or None,
            **figures,
            "parameters": row.parameters,
            "seconds": row.seconds,
            "milliseconds": row.milliseconds,
            "best": row.is_best,
        }


def _over(row: Row) -> str:
    return f" over {len(row.done)} seeds" if len(row.done) > 1 else ""


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:MOST_NAMES], *([f"{len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _with_spread(mean: float, spread: float) -> str:
    """A mean and its spread, which has two digits; the mean has no fewer decimals.

    >>> _with_spread(1.23971, 0.00212), _with_spread(243.635, 12.3), _with_spread(12345.6, 0.0)
    ('1.2397 ± 0.0021', '243.6 ± 12', '12,346 ± 0')
    """
    if spread == 0 or not math.isfinite(mean):
        return f"{figure(mean)} ± {figure(spread)}"
    decimals = max(0, min(6, 1 - math.floor(math.log10(spread))))
    usual = len(figure(mean).partition(".")[2])
    return f"{mean:,.{max(decimals, usual)}f} ± {spread:,.{decimals}f}"
