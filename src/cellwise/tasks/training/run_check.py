"""Looking through a run folder: what of it is whole, and what is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cellwise.errors import CellwiseError
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training.history import read_history
from cellwise.tasks.training.run_files import BEST, CONFIG, CORE, DATA, LAST, METRICS, SUMMARY, RunFolder
from cellwise.tasks.training.run_lock import who_trains

__all__ = ["Finding", "check_run"]

_ESTIMATORS = {
    "forecast": ("cellwise.tasks.forecasting.forecaster", "Forecaster"),
    "characters": ("cellwise.tasks.text.model", "CharacterModel"),
}


@dataclass(frozen=True)
class Finding:
    """What was found of one file, or of the run as a whole; `is_whole` unless something is wrong."""

    name: str
    words: str
    is_whole: bool = True


def check_run(path: Path) -> Iterator[Finding]:
    """Compare every file with its checksum, then load the run as `predict` would; yields what is found, one by one.

    Files that can be made again (the report) are looked at too. Raises RunFolderError where there is no run at all."""
    run = RunFolder(path)
    if not path.is_dir() or not (path / CONFIG).exists():
        run.config()  # raises, with what is there instead
    config = None
    try:
        config = run.config()
        yield Finding(CONFIG, f"whole, of the task {config['task']!r}")
    except RunFolderError as error:
        yield _trouble(CONFIG, run, error)
    yield from _finished(run) if run.is_finished else _unfinished(run)
    if config is not None and run.is_finished:
        yield _loaded(run, config)


def _finished(run: RunFolder) -> Iterator[Finding]:
    try:
        summary = run.read_json(SUMMARY)
        names = run.recorded(summary) if "files" in summary or run.config().get("format", 1) > 1 else []
    except RunFolderError as error:
        yield _trouble(SUMMARY, run, error)
        return
    yield Finding(SUMMARY, "whole" if names else "of an earlier version, without checksums")
    for name in names:
        problem = run.problem(name, summary["files"][name])
        again = "" if name in CORE else f"; make it again with: cellwise forecast report {run.path}"
        if name != CONFIG or problem:
            yield Finding(name, f"{problem}{again}" if problem else "whole", not problem)


def _unfinished(run: RunFolder) -> Iterator[Finding]:
    """Without a summary each file has its own checksum only, and some need not be there yet."""
    for name in (DATA, LAST, BEST):
        if (run / name).exists():
            try:
                run.read_tensors(name)
                yield Finding(name, "whole")
            except RunFolderError as error:
                yield _trouble(name, run, error)
    if (run / METRICS).exists():
        yield Finding(METRICS, f"follows from {LAST}")
    there = who_trains(run.path)
    goes_on = f"{there}, is training there" if there else "the command that started it goes on with it"
    try:
        history = read_history(run)
        count = 0 if history is None else len(history.epochs)
        yield Finding("run", f"not finished: {count} epochs are saved; {goes_on}")
    except RunFolderError as error:
        yield _trouble(LAST, run, error)


def _loaded(run: RunFolder, config: dict[str, Any]) -> Finding:
    module, name = _ESTIMATORS.get(config["task"], ("", ""))
    if not name:
        return Finding(
            "run", f"of the task {config['task']!r:.60}, which this version does not know", is_whole=False
        )
    try:
        getattr(import_module(module), name).load(run.path)
    except CellwiseError as error:
        return _trouble("run", run, error)
    return Finding("run", "finished; it loads")


def _trouble(name: str, run: RunFolder, error: CellwiseError) -> Finding:
    """An error without what the line says already."""
    words = str(error).removeprefix(f"the run folder {run.path} is damaged: ")
    return Finding(name, words.removeprefix(f"{name} "), is_whole=False)
