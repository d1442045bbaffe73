"""Shared by the commands that run an experiment: lists of cells, progress, results on disk."""

from __future__ import annotations

import platform
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import click

from cellwise._version import __version__
from cellwise.cli.output import check_file, is_quiet
from cellwise.errors import CellwiseError

if TYPE_CHECKING:
    from cellwise.experiments.memory import MemoryStudy
    from cellwise.experiments.vanishing_gradients import GradientStudy


Study = TypeVar("Study")


class ListError(CellwiseError, ValueError):
    """A list on the command line is empty, repeats an item, or holds something other than numbers."""


def listed(text: str, what: str) -> list[str]:
    """The items of a comma-separated list. Raises ListError if there are none, if one is empty, or is there twice."""
    parts = [part.strip() for part in text.split(",")]
    if not any(parts):
        raise ListError(f"No {what} are given; name at least one, with commas between several.")
    if not all(parts):
        raise ListError(f"One of the {what} in '{text}' is empty; write them with one comma between two.")
    twice = next((part for part in parts if parts.count(part) > 1), None)
    if twice is not None:
        raise ListError(f"'{twice}' is listed twice among the {what}; name each once.")
    return parts


def numbers(text: str, what: str) -> tuple[int, ...]:
    """A comma-separated list of whole numbers."""
    parts = listed(text, what)
    wrong = next((part for part in parts if not part.isdecimal()), None)
    if wrong is not None:
        raise ListError(
            f"'{wrong}' among the {what} is not a whole number from 0 on; write them like 4,8,16."
        )
    return tuple(int(part) for part in parts)


class Working(AbstractContextManager["Working"]):
    """Progress on stderr: one changing line on a terminal, lines in a log; nothing with --quiet."""

    def __init__(self) -> None:
        self._status: Any = None
        if sys.stderr.isatty() and not is_quiet():
            from rich.console import Console

            self._status = Console(stderr=True).status("")

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def now(self, text: str) -> None:
        """Show what is being done; replaced by the next."""
        if self._status is not None:
            self._status.update(text)

    def done(self, text: str) -> None:
        """Print a line that stays, in a log too."""
        if self._status is not None:
            self._status.console.print(text, highlight=False, markup=False, emoji=False)
        elif not is_quiet():
            print(text, file=sys.stderr, flush=True)


def say_answers(gradients: GradientStudy | None = None, memory: MemoryStudy | None = None) -> None:
    """Print the findings on each of the three questions."""
    from cellwise.experiments.findings import findings

    for found in findings(gradients, memory):
        if found.sentences:
            click.echo(f"\n{found}")


def about() -> dict[str, Any]:
    """The versions and machine of a measurement."""
    import torch

    return {
        "cellwise": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def check_figure(out: Path | None) -> None:
    """Refuse a figure that could not be drawn or written, before anything is measured."""
    from cellwise.understand.figures import FORMATS, in_style

    if out is not None:
        check_file(out, FORMATS)
        in_style()


def read_study(path: Path, kind: str, study: type[Study]) -> Study:
    """The study whose numbers an earlier run of the command `kind` wrote."""
    from cellwise.understand.figures import FigureError, load_json, rebuild

    try:
        return cast(Study, rebuild(study, load_json(path, kind)))
    except (KeyError, TypeError) as error:
        raise FigureError(
            f"'{path}' holds results that this version of `cellwise {kind}` cannot read: {error}."
        ) from error
