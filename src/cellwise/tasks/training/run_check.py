"""Checking a run folder: which files are whole, and which are damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.errors import CellwiseError
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.registry import find_task
from cellwise.tasks.training.history import read_history
from cellwise.tasks.training.replacing import current_run
from cellwise.tasks.training.run_files import (
    BEST,
    CONFIG,
    CORE,
    DATA,
    FINAL,
    LAST,
    METRICS,
    REFIT,
    SUMMARY,
    WINDOWS,
    RunFolder,
)
from cellwise.tasks.training.run_lock import who_trains

__all__ = ["Finding", "check_run"]


@dataclass(frozen=True)
class Finding:
    """The result for one file, or for the run as a whole; `is_whole` unless something is wrong."""

    name: str
    words: str
    is_whole: bool = True


def check_run(path: Path) -> Iterator[Finding]:
    """Compare every file with its checksum, then load the run as `predict` would; yields the findings one by one.

    Files that can be rebuilt (the report) are checked too. Raises RunFolderError if there is no run at all."""
    run = current_run(path)
    if not path.is_dir() or not (path / CONFIG).exists():
        run.config()  # raises, with what is there instead
    config = None
    try:
        config = run.config()
        yield Finding(CONFIG, f"whole, of the task {config['task']!r}")
    except RunFolderError as error:
        yield _trouble(CONFIG, run, error)
    task = "TASK" if config is None else config["task"]
    yield from _finished(run, task) if run.is_finished else _unfinished(run)
    if config is not None and run.is_finished:
        yield _loaded(run, config)


def _finished(run: RunFolder, task: str) -> Iterator[Finding]:
    try:
        summary = run.read_json(SUMMARY)
        names = run.recorded(summary) if "files" in summary or run.config().get("format", 1) > 1 else []
    except RunFolderError as error:
        yield _trouble(SUMMARY, run, error)
        return
    yield Finding(SUMMARY, "whole" if names else "of an earlier version, without checksums")
    for name in names:
        problem = run.problem(name, summary["files"][name])
        again = "" if name in CORE else f"; make it again with: cellwise {task} report {run.path}"
        if name != CONFIG or problem:
            yield Finding(name, f"{problem}{again}" if problem else "whole", not problem)


def _unfinished(run: RunFolder) -> Iterator[Finding]:
    """Without a summary each file has its own checksum only, and some need not be there yet."""
    for name in (DATA, LAST, BEST, REFIT, FINAL, WINDOWS):
        if (run / name).exists():
            try:
                run.read_tensors(name)
                yield Finding(name, "whole")
            except RunFolderError as error:
                yield _trouble(name, run, error)
    if (run / METRICS).exists():
        yield Finding(METRICS, f"follows from {LAST}")
    there = who_trains(run.path)
    goes_on = f"{there}, is training there" if there else "the command that started it resumes it"
    try:
        history = read_history(run)
        count = 0 if history is None else len(history.epochs)
        saved = "1 epoch is saved" if count == 1 else f"{count} epochs are saved"
        yield Finding("run", f"not finished: {saved}; {goes_on}")
    except RunFolderError as error:
        yield _trouble(LAST, run, error)


def _loaded(run: RunFolder, config: dict[str, Any]) -> Finding:
    task = find_task(config["task"])
    if task is None:
        return Finding(
            "run", f"of the task {config['task']!r:.60}, which this version does not know", is_whole=False
        )
    try:
        task.load_estimator().load(run.path)
    except CellwiseError as error:
        return _trouble("run", run, error)
    return Finding("run", "finished; it loads")


def _trouble(name: str, run: RunFolder, error: CellwiseError) -> Finding:
    """The finding for an error, without the words that its line begins with anyway."""
    words = str(error).removeprefix(f"the run folder {run.path} is damaged: ")
    return Finding(name, words.removeprefix(f"{name} "), is_whole=False)
