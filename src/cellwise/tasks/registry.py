"""The tasks by the name of their command, loaded lazily and without torch.

A task is a folder of this package whose `__init__.py` declares it:

    TASK = Task("forecast", "Forecast series.", estimator="forecaster:Forecaster", options="options:ForecastOptions")

Two that differ in nothing but what they say of a sequence share a folder, which then declares `TASKS`, several of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cellwise.tasks.commands import TaskCommands

__all__ = ["Task", "find_task", "tasks"]

HOME = "cellwise.tasks"


@dataclass(frozen=True)
class Task:
    """A task, as the command line and the run folders know it.

    name: of its command, and in config.json. summary: a line for the list of commands. estimator, options, fit_options,
    commands: `module:Class` in the task's folder; fit_options declares what only this task's `fit` takes, commands what
    the command line is told. former_names: in run folders of earlier versions."""

    name: str
    summary: str
    estimator: str
    options: str
    fit_options: str | None = None
    commands: str = "commands:Commands"
    former_names: tuple[str, ...] = ()
    folder: str = field(default="", compare=False)  # the package; the registry fills it in

    @property
    def class_name(self) -> str:
        """The estimator's name, as `cellwise.tasks` has it."""
        return self.estimator.partition(":")[2]

    def load_estimator(self) -> type[Any]:
        """The `Estimator`. Imports torch."""
        made: type[Any] = self._load(self.estimator)
        return made

    def load_options(self) -> type:
        """The class that declares the options of the constructor. Imports no torch."""
        return self._load(self.options)

    def load_fit_options(self) -> type | None:
        """The class that declares what only this task's `fit` takes, if there is anything. Imports no torch."""
        return None if self.fit_options is None else self._load(self.fit_options)

    def load_commands(self) -> TaskCommands:
        """What the task brings to the command line. Imports no torch."""
        made: TaskCommands = self._load(self.commands)()
        return made

    def _load(self, home: str) -> Any:
        module, _, name = home.partition(":")
        return getattr(importlib.import_module(f"{self.folder}.{module}"), name)


@cache
def tasks() -> dict[str, Task]:
    """Name -> task, in alphabetical order."""
    found = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.ispkg:
            package = importlib.import_module(f"{HOME}.{module.name}")
            for task in getattr(package, "TASKS", (getattr(package, "TASK", None),)):
                if isinstance(task, Task):
                    found[task.name] = replace(task, folder=package.__name__)
    return dict(sorted(found.items()))


def find_task(name: str) -> Task | None:
    """The task of this name, also of a name from earlier versions."""
    for task in tasks().values():
        if name == task.name or name in task.former_names:
            return task
    return None
