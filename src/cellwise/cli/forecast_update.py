"""`cellwise forecast update RUN FILE`: a finished run goes on with newer data."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click

from cellwise.cli.command import Command, argument, option, parameter
from cellwise.cli.examples import epilog
from cellwise.cli.output import JSON, QUIET, is_quiet, say
from cellwise.cli.task_options import option_parameters, settings_of
from cellwise.cli.tasks import answer, load_with_data
from cellwise.tasks.errors import ReportWarning
from cellwise.tasks.options import options_of
from cellwise.tasks.registry import Task
from cellwise.tasks.training.rank import is_first

__all__ = ["make"]

_HELP = """Go on with newer data: measure RUN on it, then learn it.

Rows of FILE after the last ones of a series are appended, rows that overlap them revise them, and series of other names
are added. The figures are those of the network as it was: it had not seen the new values. Then the network is
continued on all data, and RUN is replaced once that is done; the same command resumes an interrupted update."""


def make(task: Task) -> click.Command:
    """The command."""
    commands = task.load_commands()
    reading = [each for each in options_of(task.load_options()) if each.name in commands.read_options]

    def update(
        run: Path, source: str, out: Path | None, overwrite: bool, as_json: bool, quiet: bool, **values: Any
    ) -> None:
        from cellwise.tasks.training.progress import choose_progress

        forecaster, data = load_with_data(task, commands, run, source, settings_of(reading, values))
        said = {*forecaster.notes_, *data.notes}
        folder = run if out is None else out
        progress = choose_progress(False if is_quiet() else None, log=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReportWarning)  # it is among the notes
            forecaster.update(data, folder=folder, overwrite=overwrite, progress=progress)
        if not is_first():
            return
        for note in forecaster.notes_:
            if note not in said:
                say(f"note: {note}")
        answer(commands.learned(forecaster), as_json)
        for number, each in enumerate(forecaster.updates_, 1):
            say(f"update {number}: {_words(each)}")
        say(f"done in {forecaster.seconds_:.0f} s; predict with: cellwise {task.name} predict {folder}")

    parameters = [
        parameter("run", Path, argument(metavar="RUN", help="Run folder written by fit.")),
        parameter(
            "source", str, argument(metavar="FILE", help="Newer data, as that of fit; - for standard input.")
        ),
        parameter("out", Path | None, option(help="Run folder to write.  [default: RUN, replaced]"), None),
        parameter("overwrite", bool, option("--overwrite", help="Replace a run in --out."), False),
        *option_parameters(reading),
        parameter("as_json", bool, JSON, False),
        parameter("quiet", bool, QUIET, False),
    ]
    return Command("update", callback=update, params=parameters, help=_HELP, epilog=epilog("forecast update"))


def _words(record: dict[str, Any]) -> str:
    """One update in a line: when, how much, how good."""
    scores = record.get("scores", {})
    figures = ", ".join(f"{name} {each['MASE']:.3f}" for name, each in scores.items() if "MASE" in each)
    words = f"{record.get('time', '')}, {record.get('values', 0):,} new values"
    return f"{words}; MASE {figures}" if figures else words
