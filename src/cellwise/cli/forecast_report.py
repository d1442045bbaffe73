"""`cellwise forecast report RUN`: make the report of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from cellwise.cli.command import argument, command
from cellwise.cli.examples import epilog
from cellwise.tasks.registry import Task

__all__ = ["make", "report"]


def report(run: Annotated[Path, argument(help="Run folder written by fit.", metavar="RUN")]) -> None:
    """Rebuild report.html, its plots and backtest.csv of a finished run."""
    from cellwise.tasks.forecasting.forecaster import Forecaster
    from cellwise.tasks.forecasting.report import remake_report
    from cellwise.tasks.training.replacing import current_run
    from cellwise.tasks.training.run_files import REPORT

    folder = current_run(run)
    remake_report(folder, Forecaster.load(run))
    click.echo(f"report: {folder / REPORT}", err=True)


def make(task: Task) -> click.Command:
    """The command."""
    return command(report, "report", epilog=epilog("forecast report"))
