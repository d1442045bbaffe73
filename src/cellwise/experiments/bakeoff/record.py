"""The record of a comparison: a CSV file to which every training is added as soon as it is over.

A row says what was trained, under which settings, and what came of it. Rows are written whole and synced, so that
Ctrl-C, a kill or a crash costs the training at work and nothing else; half a line at the end is cut off.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from cellwise.experiments.bakeoff.problems import BakeoffError
from cellwise.tasks.training.durable import sync_folder, write_atomically
from cellwise.tasks.training.run_lock import LOCK, lock_run

__all__ = ["RUNS", "Record", "Run", "own_record", "read_runs"]

RUNS = "runs.csv"
LARGEST = 64 * 2**20  # bytes of a file that is read
_KEY = ("problem", "cell", "seed")
_BUDGETS = ("parameter_budget", "update_budget", "second_budget")  # the same for all runs of a file


@dataclass(frozen=True)
class Run:
    """One training, a row of the file.

    score: None if the training diverged. seconds: processor time of the training. hidden_size, parameters: of the
    network that was trained. *_budget: what all trainings were given; of updates and seconds one is set.
    definition: a digest of the problem and the equations. processor: where it was measured."""

    problem: str
    cell: str
    seed: int
    score: float | None
    updates: int
    seconds: float
    hidden_size: int
    parameters: int
    parameter_budget: int
    update_budget: int | None
    second_budget: float | None
    learning_rate: float
    definition: str
    cellwise: str
    processor: str

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is the training of."""
        return self.problem, self.cell, self.seed

    def differs(self, other: Run) -> str:
        """In which setting another run of the same training differs, in words; empty if in none."""
        if self.definition != other.definition:
            return f"other equations of {self.cell}, or another form of {self.problem}"
        return self._differs(other, (*_BUDGETS, "learning_rate"))

    def budget_differs(self, other: Run) -> str:
        """The same of what runs of other cells and problems share."""
        return self._differs(other, _BUDGETS)

    def _differs(self, other: Run, names: Iterable[str]) -> str:
        for name in names:
            mine, its = _text(getattr(self, name)), _text(getattr(other, name))
            if mine != its:
                return f"{name.replace('_', ' ')} {mine or 'none'}, not {its or 'none'}"
        return ""


COLUMNS = tuple(field.name for field in fields(Run))


def _text(value: Any) -> str:
    """A value as it stands in the file."""
    return "" if value is None else str(value)


def _line(values: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _line_of(run: Run) -> str:
    return _line(_text(value) for value in asdict(run).values())


def read_runs(path: Path) -> list[Run]:
    """The runs of a file, which may come from anybody. A last line without its end is left out.

    Raises BakeoffError if it cannot be read or is no such file."""
    try:
        if path.stat().st_size > LARGEST:
            raise BakeoffError(f"{path} has more than {LARGEST:,} bytes; it is no file of runs.")
        text = path.read_bytes().decode("utf8")
    except OSError as error:
        raise BakeoffError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise BakeoffError(f"{path} is no file of runs: it is not UTF-8.") from error
    rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))
    if tuple(next(rows, ())) != COLUMNS:
        raise BakeoffError(f"{path} is no file of runs of `cellwise compare-cells`: its columns are others.")
    found: dict[tuple[str, str, int], Run] = {}
    for number, row in enumerate(rows, 2):
        try:
            run = _run_of(row)
        except ValueError as error:
            raise BakeoffError(f"Line {number} of {path} is no run: {error}.") from error
        found[run.key] = run
    return list(found.values())


def _run_of(row: list[str]) -> Run:
    """Raises ValueError for what is no run."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"it has {len(row)} values, not {len(COLUMNS)}")
    hints = get_type_hints(Run)
    return Run(**{name: _value(name, hints[name], text) for name, text in zip(COLUMNS, row, strict=True)})


def _value(name: str, kind: Any, text: str) -> Any:
    if kind is str:
        if not text.isprintable():
            raise ValueError(f"its {name} cannot be printed")
        return text
    if not text and kind in (int | None, float | None):
        return None
    try:
        value: float = int(text) if kind in (int, int | None) else float(text)
    except ValueError:
        raise ValueError(f"its {name} is {text!r:.40}") from None
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"its {name} is {text!r:.40}")
    return value


@dataclass
class Record:
    """The runs of a folder, to which others are added."""

    path: Path
    runs: list[Run]

    def forget(self, cells: Collection[str], problems: Collection[str]) -> None:
        """Take the runs of some cells on some problems out of the file. Raises OSError."""
        self.runs = [run for run in self.runs if not (run.cell in cells and run.problem in problems)]
        write_atomically(self.path, "".join([_line(COLUMNS), *map(_line_of, self.runs)]).encode("utf8"))

    def add(self, run: Run) -> None:
        """Add a run to the file. Raises OSError."""
        with self.path.open("ab") as file:
            file.write(_line_of(run).encode("utf8"))
            file.flush()
            os.fsync(file.fileno())
        self.runs.append(run)


@contextmanager
def own_record(folder: Path) -> Iterator[Record]:
    """The record in a folder, which is this process's own inside the block.

    Raises BakeoffError if there is something else; RunFolderError if another process is there.
    """
    if folder.exists() and not folder.is_dir():
        raise BakeoffError(f"{folder} is a file; a comparison needs a folder of its own.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RUNS
    if not path.exists() and {each.name for each in folder.iterdir()} - {LOCK}:
        raise BakeoffError(f"{folder} is not empty and has no {RUNS}; choose another folder.")
    with lock_run(folder):
        runs = read_runs(path) if path.exists() else []
        _cut_off(path)
        yield Record(path, runs)


def _cut_off(path: Path) -> None:
    """Begin the file, or cut off the half of a line that a kill has left."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    with path.open("r+b" if content else "wb") as file:
        if content:
            file.truncate(whole)
        else:
            file.write(_line(COLUMNS).encode("utf8"))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
