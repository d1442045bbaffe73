"""Published experiments that tasks reproduce, for `cellwise reproduce`: declared by a task, found here, without torch.

A task's `__init__.py` may declare them beside its `TASK`:

    EXPERIMENTS = (Experiment("m3-monthly", "...", run="m3:reproduce", columns=(("sMAPE", "smape", 2), ...)),)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from cellwise.tasks.registry import tasks

__all__ = ["Experiment", "experiments", "mean_row"]

Row = TypeVar("Row")


@dataclass(frozen=True)
class Experiment:
    """One published experiment.

    data: sentences that say where the data comes from, and what --data may be. run: `module:function` in the task's
    folder, (data or None, how many seeds, settings of the estimator, what to say progress with) -> rows, dataclasses
    with `method`, `seconds` and `source`. columns: title, attribute of a row and digits of each figure."""

    name: str
    data: str
    run: str
    columns: tuple[tuple[str, str, int], ...]
    folder: str = field(default="", compare=False)  # the task's package, filled in when it is found

    def load_run(self) -> Callable[[Path | None, int, dict[str, Any], Callable[[str], None]], list[Any]]:
        """The function. Imports torch."""
        module, _, name = self.run.partition(":")
        made: Callable[..., list[Any]] = getattr(importlib.import_module(f"{self.folder}.{module}"), name)
        return made


@cache
def experiments() -> dict[str, Experiment]:
    """Name -> experiment, task by task."""
    found = {}
    for folder in dict.fromkeys(task.folder for task in tasks().values()):
        for experiment in getattr(importlib.import_module(folder), "EXPERIMENTS", ()):
            found[experiment.name] = replace(experiment, folder=folder)
    return found


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean over seeds of rows whose methods end in ", seed N"; a figure that one has not has no mean."""
    first: Any = rows[0]
    means: dict[str, Any] = {}
    for each in fields(first):
        values = [getattr(row, each.name) for row in rows]
        if all(isinstance(value, (int, float)) for value in values):
            means[each.name] = sum(values) / len(values)
        elif None in values:
            means[each.name] = None
    name = first.method.rpartition(",")[0]
    means["method"] = f"{name}, mean of {len(rows)} seed{'s' * (len(rows) != 1)}"
    mean: Row = replace(first, **means)
    return mean
