"""`compare(Forecaster(horizon=28), "sales.csv", cells=["gru", "lstm"]).rows`: what is trained side by side."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from cellwise.tasks.comparable import HeldOut
from cellwise.tasks.comparing.page import write_comparison
from cellwise.tasks.comparing.plan import Candidate, Job, candidates_of, jobs_of, seeds_of
from cellwise.tasks.comparing.progress import CompareProgress, choose_progress
from cellwise.tasks.comparing.record import Finding, Record, own_record
from cellwise.tasks.comparing.result import Comparison, ComparisonRun
from cellwise.tasks.errors import (
    DataError,
    ReportWarning,
    RunFolderError,
    TaskError,
    TrainingError,
    TrainingInterrupted,
)
from cellwise.tasks.estimator import Estimator
from cellwise.tasks.report.page import attempt
from cellwise.tasks.training.history import Epoch, read_history
from cellwise.tasks.training.loading import store_cells
from cellwise.tasks.training.loop import torch_threads
from cellwise.tasks.training.rank import process_count
from cellwise.tasks.training.run_folder import RunFolder

__all__ = ["SEEDS", "CompareInterrupted", "compare"]

SEEDS = 3
TIMED_SECONDS, TIMED_CALLS = 0.3, (3, 50)  # a prediction is timed so long, at least and at most so often


class CompareInterrupted(TrainingInterrupted):
    """Ctrl-C or SIGTERM during a comparison. `comparison`: what was found until then; None if nothing was."""

    comparison: Comparison | None = None


def compare(
    estimator: Estimator,
    data: Any,
    target: Any = None,
    *,
    valid: Any = None,
    cells: Iterable[Any] | None = None,
    settings: Mapping[str, Iterable[Any]] | None = None,
    seeds: int | Iterable[int] = SEEDS,
    test: Any = None,
    test_target: Any = None,
    folder: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | CompareProgress | None = None,
    **more: Any,
) -> Comparison:
    """Train an estimator with each cell, combination of settings and seed on the same data, and measure all of them on
    the same part, which was held out. The estimator stays as it is.

    All candidates are trained with one seed before the next seed, forwards and backwards in turn, so that a machine
    that slows down slows all of them. Each has the same number of epochs, or the same time where the estimator has
    `minutes`.

    data, target, valid, more: as `fit` of this estimator takes them.
    cells: as the option `cell` takes one each; None: that of the estimator. settings: other options by name, each with
    the values to try. seeds: how many, from that of the estimator on, or a list of them.
    test, test_target: what `measure` takes; None: what `fit` holds out.
    folder: keeps each training as a run folder, and what it came to; the same call goes on, and one with more cells,
    values or seeds adds to it. It gets a page, report.html. `overwrite` begins anew.
    progress: True or False; None shows a line a training on a terminal.

    Raises OptionError, UnknownCellError, CellError; DataError, also if nothing is held out; RunFolderError if the
    folder is damaged or of another comparison; TrainingError if no training came to a figure; CompareInterrupted, a
    KeyboardInterrupt with what was found, on Ctrl-C.

    >>> from cellwise.tasks import CharacterModel
    >>> text = "The whale swims, and so does the ship. " * 40
    >>> model = CharacterModel(hidden_size=8, epochs=1)
    >>> found = compare(model, text, cells=["gru", "lstm"], seeds=2)
    >>> found.metric, sorted(row.name for row in found.rows), [len(row.runs) for row in found.rows]
    ('bits_per_character', ['gru', 'lstm'], [2, 2])
    """
    if process_count() > 1:
        raise TaskError("a comparison trains in one process; start it without torchrun")
    more |= {name: value for name, value in (("target", target), ("valid", valid)) if value is not None}
    candidates = candidates_of(estimator, cells, settings)
    jobs = jobs_of(estimator, candidates, seeds_of(estimator, seeds), data, more)
    measured_on = None if test is None else (test, test_target)
    made = _Comparing(estimator, candidates, jobs, data, more, measured_on)
    path = None if folder is None else Path(folder)
    with own_record(path, jobs, overwrite) as record:
        found = made.run(record, choose_progress(progress))
        if record.folder is not None:
            _write_page(record.folder, found, made.settings)
    return found


def _write_page(folder: RunFolder, found: Comparison, settings: Mapping[str, Any]) -> None:
    problem = attempt(lambda: write_comparison(folder, found, settings), "the same comparison once more")
    if problem is not None:
        warnings.warn(problem, ReportWarning, stacklevel=3)


class _Comparing:
    """One comparison: what it is about, and what was found so far."""

    def __init__(
        self,
        estimator: Estimator,
        candidates: Sequence[Candidate],
        jobs: Sequence[Job],
        data: Any,
        more: Mapping[str, Any],
        test: tuple[Any, Any] | None,
    ) -> None:
        self._estimator, self._candidates, self._jobs = estimator, candidates, jobs
        self._data, self._more, self._test = data, more, test
        self._found: list[Finding] = []

    @property
    def settings(self) -> dict[str, Any]:
        """The options that all candidates share."""
        varied = {"seed", *(name for each in self._candidates for name in each.settings)}
        return {name: value for name, value in self._estimator.get_params().items() if name not in varied}

    @property
    def comparison(self) -> Comparison:
        """What was found so far."""
        first = next((each for each in self._found if each.held_out is not None), None)
        held_out = None if first is None else first.held_out
        return Comparison(
            self._estimator.task,
            self._metric,
            self._estimator.higher_is_better,
            {each.name: each.shown for each in self._candidates},
            tuple(each.run for each in self._found),
            {} if held_out is None else held_out.others,
            "" if held_out is None else held_out.words,
            held_out is not None and held_out.is_test,
            "" if first is None else first.prediction,
        )

    @property
    def _metric(self) -> str:
        return self._estimator.metric

    def run(self, record: Record, progress: CompareProgress) -> Comparison:
        """Do the trainings that are not there yet."""
        kept = {job.folder: self._kept(record, job) for job in self._jobs}
        progress.start(sum(each is not None for each in kept.values()), len(self._jobs))
        try:
            for job in self._jobs:
                finding = kept[job.folder]
                if finding is not None:
                    self._found.append(finding)
                    continue
                finding = self._train(job, record, progress)
                record.put(job, finding)
                self._found.append(finding)
                progress.run(finding.run, self._metric)
        except KeyboardInterrupt as stop:
            raise self._interrupted(stop, record, kept) from stop
        finally:
            progress.end()
        if self.comparison.best is None:
            raise TrainingError(
                f"none of {len(self._found)} trainings came to a figure; the first: {self._found[0].run.problem}"
            )
        return self.comparison

    def _kept(self, record: Record, job: Job) -> Finding | None:
        """What the record holds. What other test data came to is nothing to it: then the runs are measured again."""
        finding = record.get(job)
        return finding if self._test is None or (finding is not None and finding.run.problem) else None

    def _train(self, job: Job, record: Record, progress: CompareProgress) -> Finding:
        """Train, or take up what was trained, and measure. A training that fails is a finding, too."""
        watcher, place = _Watcher(job, progress), record.place(job)
        try:
            if place is not None and RunFolder(place).is_finished:
                made = _load(job, place)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ReportWarning)  # the figures are what counts here
                    fresh = type(job.estimator)(**job.estimator.get_params())  # a job outlives what it trains
                    made = fresh.fit(
                        self._data, folder=place, overwrite=record.begins_anew, progress=watcher, **self._more
                    )
        except (TrainingError, torch.OutOfMemoryError) as error:
            return Finding(ComparisonRun(job.candidate, job.seed, problem=str(error).partition("\n")[0]))
        return self._measured(job, made)

    def _measured(self, job: Job, made: Estimator) -> Finding:
        with torch_threads(made.threads):
            held_out = made._held_out_figures() if self._test is None else self._tested(made)
            if held_out is None:
                raise DataError(
                    "nothing is held out from training, so there is no figure to compare by; give longer data, or hold "
                    "some of it out"
                )
            if self._metric not in held_out.metrics:
                raise TaskError(
                    f"{self._metric} is not known on {held_out.words}; give test data to measure on"
                )
            prediction = made._one_prediction()
            words, milliseconds = ("", None) if prediction is None else (prediction[0], _timed(prediction[1]))
        epochs = () if made.trained_ is None else made.trained_.epochs
        run = ComparisonRun(
            job.candidate,
            job.seed,
            dict(held_out.metrics),
            len(epochs),
            round(sum(each.seconds for each in epochs), 3),
            sum(weights.numel() for weights in made.network_.parameters()),
            milliseconds,
        )
        return Finding(run, held_out, words)

    def _tested(self, made: Estimator) -> HeldOut:
        assert self._test is not None
        data, target = self._test
        return HeldOut(made.measure(data, target), "test data that no training has seen", True)

    def _interrupted(
        self, stop: KeyboardInterrupt, record: Record, kept: Mapping[str, Finding | None]
    ) -> CompareInterrupted:
        done, total = len(self._found), len(self._jobs)
        said = f"stopped in training {done + 1} of {total}"
        if record.folder is not None:
            again = "the same command without --overwrite" if record.begins_anew else "the same command"
            said += f"; {done} are kept in {record.folder.path}; {again} goes on from there"
        made = CompareInterrupted(said)
        made.number = getattr(stop, "number", made.number)
        self._found += [each for job in self._jobs[done:] if (each := kept[job.folder]) is not None]
        made.comparison = self.comparison if self._found and self.comparison.best is not None else None
        return made


def _load(job: Job, place: Path) -> Estimator:
    """The estimator of a sub-run that was finished but not measured. RunFolderError if it is another training's."""
    run = RunFolder(place)
    made = type(job.estimator).load(place)
    identity = {
        "settings": made._stored_settings(made._fitted_how),
        "cell": store_cells(made._cells),
        "data": run.config()["data"],
    }
    if identity != job.identity:
        raise RunFolderError(
            f"{place} holds a finished run of other settings, equations or data; choose another folder, or give "
            "--overwrite"
        )
    made.trained_ = read_history(run)
    return made


def _timed(call: Callable[[], object]) -> float:
    """Median milliseconds of a call, the first not counted."""
    call()
    least, most = TIMED_CALLS
    taken: list[float] = []
    while len(taken) < least or (len(taken) < most and sum(taken) < TIMED_SECONDS):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return round(1000 * median(taken), 4)


class _Watcher:
    """The progress of one training, as that of the comparison."""

    def __init__(self, job: Job, progress: CompareProgress) -> None:
        self._job, self._progress = job, progress

    def start(
        self, epochs: int | None, steps: int, done: int, seconds: float | None = None, stage: str = ""
    ) -> None: ...
    def step(self, epoch: int, loss: float) -> None: ...

    def epoch(self, epoch: Epoch, best: Epoch | None) -> None:
        """Pass it on."""
        self._progress.epoch(self._job.candidate, self._job.seed, epoch)

    def end(self) -> None: ...
