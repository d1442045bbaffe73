"""What a task brings to the command line, in `commands.py` of its folder. `cli/tasks.py` makes the commands of it.

Options come from the task's declarations; here stand its words, how it reads what a person names, and how its answers
look. Methods import torch, the module does not, so that `--help` is quick.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["Answer", "Demo", "Reading", "TaskCommands", "Word", "Words"]


@dataclass(frozen=True)
class Word:
    """A word that a command takes by its place: how help names it, and a sentence."""

    metavar: str
    help: str


@dataclass(frozen=True)
class Words:
    """A command in words: a line for the list, its help, examples as they are typed."""

    line: str
    help: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Demo:
    """A training that shows the task: on which bundled data, with which settings.

    source: as `read` takes it. about: what it is, and whose. out: the run folder. settings, fit_settings: of the
    estimator and of `fit`, where they are not the defaults. options: settings that the command may change."""

    source: str
    about: str
    out: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    fit_settings: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ("cell", "epochs", "seed")


@dataclass(frozen=True)
class Reading:
    """Data as `fit` takes it, what it is in a line, and what was noticed in it, in sentences."""

    data: Any
    about: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a command found out.

    value: as `--json` prints it. text, or table (titles and rows): as it is printed else. remarks: sentences on it.
    write: puts it into a file for `--out`, and says in a few words what it wrote."""

    value: Any
    text: str = ""
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None
    remarks: tuple[str, ...] = ()
    write: Callable[[Path], str] | None = None


class TaskCommands(ABC):
    """The commands of one task."""

    data: ClassVar[Word]
    """What `fit` learns from and `evaluate` measures on."""
    valid: ClassVar[str | None] = None
    """Help of `--valid DATA`, which decides when to stop, for a task whose `fit` takes it."""
    start: ClassVar[Word]
    """What `predict` goes on from."""
    words: ClassVar[Mapping[str, Words]]
    """Of `fit`, `predict`, `evaluate`, `demo`, and of the group, by the empty name."""
    demo: ClassVar[Demo]
    predict_options: ClassVar[type | None] = None
    """Declares what only `predict` takes; its values are given to the method."""
    evaluate_options: ClassVar[type | None] = None
    """The same of `evaluate`."""
    read_options: ClassVar[tuple[str, ...]] = ()
    """Options of the estimator about how files are read, which may be another way than when it was trained."""

    @abstractmethod
    def read(self, estimator: Any, source: str) -> Reading:
        """What a person named: a file, `-` for standard input, or bundled data. Raises DataError."""

    @abstractmethod
    def learned(self, estimator: Any) -> Answer:
        """What came of a training."""

    @abstractmethod
    def predict(self, estimator: Any, data: Any, **options: Any) -> Answer:
        """What the estimator makes of data; of None, where nothing was named."""

    def evaluate(self, estimator: Any, data: Any, **options: Any) -> Answer:
        """The figures of `measure`, side by side."""
        figures = estimator.measure(data)
        titles = ("model", *(name.replace("_", " ") for name in figures))
        row = (estimator.model_name, *(f"{value:.4g}" for value in figures.values()))
        return Answer({"model": estimator.model_name, **figures}, table=(titles, [row]))

    def check_out(self, path: Path) -> None:  # noqa: B027  (most may have any name)
        """Raise DataError unless `Answer.write` can write a file of this name."""
