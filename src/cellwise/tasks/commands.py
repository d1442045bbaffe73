"""A task's part of the command line, in `commands.py` of its folder. `cli/tasks.py` builds the commands from it.

Options come from the task's declarations. This adds help texts, how input is read, and how results are printed.
Methods import torch, the module does not, so that `--help` is quick.
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
    """A positional argument: its name in the help, and a sentence."""

    metavar: str
    help: str


@dataclass(frozen=True)
class Words:
    """The texts of a command: a line for the list, its help, examples as they are typed."""

    line: str
    help: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Demo:
    """A demonstration of the task: bundled data and settings.

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
    """Data as `fit` takes it, a line that describes it, and notes on it, in sentences."""

    data: Any
    about: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """The result of a command.

    value: printed by `--json`. text, or table (titles and rows): printed without it. remarks: sentences on it.
    write: writes it to the file of `--out`, and returns a few words on what it wrote; None: `value` is a table, as one
    mapping or several."""

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
        """Read what a person named: a file, `-` for standard input, or bundled data. Raises DataError."""

    @abstractmethod
    def learned(self, estimator: Any) -> Answer:
        """The result of a training."""

    @abstractmethod
    def predict(self, estimator: Any, data: Any, **options: Any) -> Answer:
        """The estimator's prediction from data, or from None if nothing was named."""

    def evaluate(self, estimator: Any, data: Any, **options: Any) -> Answer:
        """The metrics of `measure`, side by side."""
        figures = estimator.measure(data)
        titles = ("model", *(name.replace("_", " ") for name in figures))
        row = (estimator.model_name, *(f"{value:.4g}" for value in figures.values()))
        return Answer({"model": estimator.model_name, **figures}, table=(titles, [row]))

    def check_out(self, path: Path) -> None:  # noqa: B027  (most may have any name)
        """Raise DataError unless `Answer.write` can write a file of this name."""
