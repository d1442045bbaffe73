"""`cellwise text report RUN`: make the report of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from cellwise.cli.command import argument, command
from cellwise.cli.examples import epilog
from cellwise.tasks.registry import Task

__all__ = ["make", "report"]


def report(run: Annotated[Path, argument(help="Run folder written by fit.", metavar="RUN")]) -> None:
    """Rebuild report.html, and its plots, of a finished run."""
    from cellwise.tasks.text.model import LanguageModel
    from cellwise.tasks.text.report import remake_report
    from cellwise.tasks.training.run_files import REPORT, RunFolder

    remake_report(RunFolder(run), LanguageModel.load(run))
    click.echo(f"report: {run / REPORT}", err=True)


def make(task: Task) -> click.Command:
    """The command."""
    return command(report, "report", epilog=epilog("text report"))
