"""The folder of a comparison: a run folder for each training, and a JSON file of what each came to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellwise.tasks.comparable import HeldOut
from cellwise.tasks.comparing.plan import Job
from cellwise.tasks.comparing.result import ComparisonRun
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.options import short_repr
from cellwise.tasks.training.durable import leftover_of, remove
from cellwise.tasks.training.run_files import CONFIG, PLOTS, RunFolder
from cellwise.tasks.training.run_lock import LOCK, lock_run

__all__ = ["COMPARISON", "Finding", "Record", "own_record"]

COMPARISON = "comparison.json"
FORMAT = 1


@dataclass(frozen=True)
class Finding:
    """What one training came to. held_out: its figures, None if it failed. prediction: what was timed, in words."""

    run: ComparisonRun
    held_out: HeldOut | None = None
    prediction: str = ""


@dataclass
class Record:
    """The findings by the name of their sub-run, kept in a folder if there is one.

    begins_anew: whether runs that are there are to be replaced."""

    folder: RunFolder | None = None
    begins_anew: bool = False
    _found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def get(self, job: Job) -> Finding | None:
        """The finding of a training, if it is here. The file may come from anybody.

        Raises RunFolderError if it is damaged, or of a training with other settings, equations or data."""
        folder, found = self.folder, self._found.get(job.folder)
        if folder is None or found is None:
            return None
        content = folder.guarded(f"{COMPARISON} has no such run", lambda: _finding_of(found, job))
        identity = found["identity"]
        if identity != dict(job.identity):
            raise RunFolderError(
                f"{job.folder} in {folder.path} was trained with {_difference(identity, job.identity)}; go on as it "
                "was, choose another folder, or give --overwrite"
            )
        return content

    def put(self, job: Job, finding: Finding) -> None:
        """Keep a finding. Raises RunFolderError if the folder is no longer there."""
        self._found[job.folder] = {
            "identity": dict(job.identity),
            "run": {**asdict(finding.run), "metrics": dict(finding.run.metrics)},
            "held_out": None if finding.held_out is None else _plain(finding.held_out),
            "prediction": finding.prediction,
        }
        if self.folder is not None:
            self.folder.write_json(COMPARISON, {"format": FORMAT, "runs": self._found})

    def place(self, job: Job) -> Path | None:
        """The run folder of a training."""
        return None if self.folder is None else self.folder.path / job.folder


def _plain(held_out: HeldOut) -> dict[str, Any]:
    others = {name: dict(metrics) for name, metrics in held_out.others.items()}
    return {**asdict(held_out), "metrics": dict(held_out.metrics), "others": others}


def _finding_of(found: Mapping[str, Any], job: Job) -> Finding:
    """Raises ValueError, KeyError or TypeError for what is no finding."""
    run = ComparisonRun(**found["run"])
    numbers = [
        run.epochs,
        run.seconds,
        run.parameters,
        *([] if run.milliseconds is None else [run.milliseconds]),
    ]
    if (run.candidate, run.seed) != (job.candidate, job.seed) or not all(map(_is_finite, numbers)):
        raise ValueError("it is another run's, or has no figures")
    if not isinstance(run.problem, str) or not isinstance(found["prediction"], str):
        raise ValueError("its words are none")
    if not isinstance(found["identity"], dict):
        raise ValueError("it does not say what it depends on")
    held_out = None if found["held_out"] is None else HeldOut(**found["held_out"])
    if bool(run.problem) == (held_out is not None) or bool(run.problem) == bool(run.metrics):
        raise ValueError("it has figures and failed, or neither")
    if held_out is not None:
        _check_held_out(held_out, run.metrics, job.estimator.metric)
    return Finding(run, held_out, found["prediction"])


def _check_held_out(held_out: HeldOut, metrics: Mapping[str, Any], ranks: str) -> None:
    """Raise ValueError unless all metrics are numbers of the same names, that which ranks among them.

    One may be NaN, which JSON knows as Python writes it."""
    for each in (metrics, held_out.metrics, *held_out.others.values()):
        if not isinstance(each, dict) or not all(type(value) in (int, float) for value in each.values()):
            raise ValueError("its metrics are no numbers")
        if each.keys() != metrics.keys() or ranks not in each:
            raise ValueError("its metrics are not those of the task")
    if not (isinstance(held_out.words, str) and isinstance(held_out.is_test, bool)):
        raise ValueError("it does not say what it was measured on")


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In what two trainings differ, in words."""
    before, after = then.get("settings"), now["settings"]
    if isinstance(before, dict):
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                return f"{name} = {short_repr(before.get(name))}, not {short_repr(after.get(name))}"
    return "other equations of its cell" if then.get("cell") != now["cell"] else "other data"


@contextmanager
def own_record(path: Path | None, jobs: Sequence[Job], overwrite: bool) -> Iterator[Record]:
    """The record in a folder, which is this process's own inside the block; without a folder one that is not kept.

    overwrite: forget what is there, and clear the sub-runs that are to be trained.
    Raises RunFolderError if something else is there, or if it is damaged."""
    if path is None:
        yield Record()
        return
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; a comparison needs a folder of its own")
    leftovers = [each for each in path.glob(f"{COMPARISON}.*") if leftover_of(each.name) == COMPARISON]
    mine = {LOCK, *(each.name for each in leftovers)}
    if (
        path.is_dir()
        and not (path / COMPARISON).exists()
        and not {each.name for each in path.iterdir()} <= mine
    ):
        raise RunFolderError(
            f"{path} is not empty and holds no comparison (no {COMPARISON}); choose another folder"
        )
    path.mkdir(parents=True, exist_ok=True)
    with lock_run(path) as lock:
        remove(leftovers)
        folder = RunFolder(path, lock)
        if overwrite:
            for job in jobs:
                _clear(RunFolder(path / job.folder))
        begun = (path / COMPARISON).exists() and not overwrite
        record = Record(folder, overwrite, _read(folder) if begun else {})
        if not begun:  # so that the folder is known for what it is before the first training is over
            folder.write_json(COMPARISON, {"format": FORMAT, "runs": {}})
        yield record


def _read(folder: RunFolder) -> dict[str, dict[str, Any]]:
    found = folder.read_json(COMPARISON)
    if found.get("format") != FORMAT:
        raise folder.damaged(f"{COMPARISON} has the format {short_repr(found.get('format'))}, not {FORMAT}")
    runs = found.get("runs")
    if not isinstance(runs, dict) or not all(isinstance(each, dict) for each in runs.values()):
        raise folder.damaged(f"{COMPARISON} has no runs")
    return runs


def _clear(run: RunFolder) -> None:
    """Delete the files of a run, and nothing else that may lie in its folder.

    Where something else does, config.json stays: without it the folder would be no place for a run."""
    if (run / CONFIG).is_file() and not run.is_foreign:
        run.clear()
        if {each.name for each in run.path.iterdir()} <= {CONFIG, PLOTS}:
            remove([run / CONFIG])
            plots = run / PLOTS
            if plots.is_dir() and not plots.is_symlink() and not any(plots.iterdir()):
                plots.rmdir()  # or the folder would not count as empty
