"""`cellwise forecast export RUN --out results.xlsx`: all tables of a run in one workbook."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from cellwise.cli.command import argument, command, option
from cellwise.cli.examples import epilog
from cellwise.cli.output import Quiet, check_file, say
from cellwise.tasks.registry import Task

__all__ = ["export", "make"]


def export(
    run: Annotated[Path, argument(help="Run folder written by fit.", metavar="RUN")],
    out: Annotated[
        Path | None, option(help="Workbook to write.  [default: RUN.xlsx]", metavar="FILE.xlsx")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the forecast, the scores, the backtest and the settings of a run to one Excel workbook, a sheet for each.

    The run folder holds the same tables as CSV files."""
    from cellwise.tasks.data.files import check_writable, write_file
    from cellwise.tasks.forecasting.exports import tables_of
    from cellwise.tasks.forecasting.forecaster import Forecaster

    path = run.with_name(f"{run.name}.xlsx") if out is None else out
    check_file(path, (".xlsx",))
    check_writable(path)
    tables = tables_of(Forecaster.load(run))
    write_file(tables, path)
    say(f"wrote {len(tables)} sheets ({', '.join(tables)}) to {path}")


def make(task: Task) -> click.Command:
    """The command."""
    return command(export, "export", epilog=epilog("forecast export"))
