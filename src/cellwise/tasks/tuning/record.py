"""The record of a search, in a folder of its own: a JSON file that is replaced as a whole after each trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellwise.tasks.errors import OptionError, RunFolderError
from cellwise.tasks.options import Option, short_repr
from cellwise.tasks.training.durable import leftover_of, remove
from cellwise.tasks.training.run_files import RunFolder
from cellwise.tasks.training.run_lock import LOCK, lock_run
from cellwise.tasks.tuning.sampling import Space, holds
from cellwise.tasks.tuning.trial import Trial, trial_of

__all__ = ["SEARCH", "Record", "own_record"]

SEARCH = "search.json"
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """Where the trials of a search are kept, if anywhere.

    about: what they depend on, JSON-able; a search goes on only if all of it is as it was."""

    about: Mapping[str, Any]
    folder: RunFolder | None = None

    def save(self, trials: Sequence[Trial]) -> None:
        """Write all trials. Raises RunFolderError if the folder is no longer there."""
        if self.folder is not None:
            records = [each.record for each in trials]
            self.folder.write_json(SEARCH, {"format": FORMAT, **self.about, "trials": records})

    def read(self, options: Mapping[str, Option], spaces: Mapping[str, Space]) -> list[Trial]:
        """The trials that are there already. The file may come from anybody.

        options, spaces: of what is searched. Raises RunFolderError if it is damaged, or another search's."""
        folder = self.folder
        if folder is None or not (folder / SEARCH).exists():
            return []
        found = folder.read_json(SEARCH)
        if found.get("format") != FORMAT:
            raise folder.damaged(f"{SEARCH} has the format {short_repr(found.get('format'))}, not {FORMAT}")
        for name, now in self.about.items():
            if found.get(name) != now:
                raise _other(folder, _difference(name, found.get(name), now))

        def read() -> list[Trial]:
            trials = [trial_of(each, number, list(spaces)) for number, each in enumerate(found["trials"])]
            for trial in trials:
                for name, value in trial.settings.items():
                    options[name].check(value)
                    if not holds(spaces[name], value):
                        raise ValueError(
                            f"trial {trial.number} was not looked for there: {name} = {value!r:.60}"
                        )
            return trials

        try:
            return folder.guarded(f"{SEARCH} has no such trials", read)
        except OptionError as error:
            raise folder.damaged(f"{SEARCH} has no such trials ({error})") from error


def _difference(name: str, then: Any, now: Any) -> str:
    """In what two searches differ, in words."""
    if name in ("settings", "search") and isinstance(then, dict):
        key = min(key for key in {*then, *now} if then.get(key) != now.get(key))
        before, after = then.get(key), now.get(key)
        if name == "search" and None in (before, after):
            return f"{key} fixed, not searched" if before is None else f"{key} searched, not fixed"
        what = key if name == "settings" else f"the range of {key}"
        return f"{what} = {short_repr(before)}, not {short_repr(after)}"
    words = {
        "data": "other data",
        "cell": "other equations of its cell",
        "cells": "other equations of a cell",
    }
    return words.get(name, f"another {name}")


def _other(folder: RunFolder, what: str) -> RunFolderError:
    return RunFolderError(
        f"the search in {folder.path} was made with {what}; go on with it as it was, choose another folder, or give "
        "--overwrite"
    )


@contextmanager
def own_record(path: Path | None, about: Mapping[str, Any], overwrite: bool) -> Iterator[Record]:
    """The record in a folder, which is this process's own inside the block; without a folder one that is not kept.

    Raises RunFolderError if another search is there, or what is no search."""
    if path is None:
        yield Record(about)
        return
    if path.exists() and not path.is_dir():
        raise RunFolderError(f"{path} is a file; a search needs a folder of its own")
    leftovers = [each for each in path.glob(f"{SEARCH}.*") if leftover_of(each.name) == SEARCH]
    if path.is_dir() and not {each.name for each in path.iterdir()} <= {
        SEARCH,
        LOCK,
        *(each.name for each in leftovers),
    }:
        raise RunFolderError(
            f"{path} holds more than a search, whose one file is {SEARCH}; choose another folder"
        )
    path.mkdir(parents=True, exist_ok=True)
    with lock_run(path) as lock:
        remove([*leftovers, *([path / SEARCH] if overwrite else [])])
        yield Record(about, RunFolder(path, lock))
