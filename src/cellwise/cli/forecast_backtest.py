"""`cellwise forecast backtest FILE|RUN`: forecasts of the past, beside simple methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cellwise.cli.command import Command, argument, option, parameter
from cellwise.cli.examples import epilog
from cellwise.cli.output import JSON, QUIET, say
from cellwise.cli.task_options import option_parameters, settings_of
from cellwise.cli.tasks import answer, check_out, read, train
from cellwise.tasks.commands import Reading
from cellwise.tasks.errors import TaskError
from cellwise.tasks.options import options_of
from cellwise.tasks.registry import Task

__all__ = ["make"]

_HELP = """Forecast the past, and compare with simple methods.

A network trains on the data before the first cutoff, then forecasts one horizon after each cutoff. A RUN
that has held out as many test windows is measured without training."""


def make(task: Task) -> click.Command:
    """The command, with the options of a forecaster."""
    commands = task.load_commands()
    options = [
        replace(each, is_required=False, default=None, help="Steps to forecast; required with a FILE.")
        if each.name == "horizon"
        else each
        for each in options_of(task.load_options())
    ]
    windows = [
        replace(each, help="Cutoffs at the end of the data to forecast from.", at_least=1)
        if each.name == "cutoffs"
        else each
        for each in options_of(task.load_fit_options() or object)
    ]

    def write(forecaster: Any, file: Path | None) -> None:
        from cellwise.tasks.data.files import write_file
        from cellwise.tasks.forecasting.exports import measured_tables

        if file is not None and (tables := measured_tables(forecaster)):
            write_file(tables, file)
            say(f"wrote {tables['backtest'].height:,} rows to {file}")

    def backtest(
        source: str, out: Path | None, overwrite: bool, as_json: bool, quiet: bool, **values: Any
    ) -> None:
        from cellwise.tasks.data.files import is_table

        file = out if out is not None and is_table(out) else None
        folder = None if file else out
        check_out(file, as_json)
        how = settings_of(windows, values)
        cutoffs, step = how["cutoffs"], how["step"]
        if cutoffs < 1:
            raise TaskError(f"a backtest needs at least one cutoff, not {cutoffs}")
        estimator: Any = task.load_estimator()
        if Path(source).is_dir():
            trained = estimator.load(Path(source))
            if trained.kept_from_training(cutoffs, step):
                answer(commands.learned(trained), as_json)
                write(trained, file)
                return
            forecaster, data = estimator(**trained.get_params()), Reading(trained.table_)
            say(
                "this run was trained on the windows to be measured, so a fresh network is trained with its settings"
            )
        else:
            if values["horizon"] is None:
                raise TaskError("a backtest of a file needs --horizon")
            forecaster = estimator(**settings_of(options, values))
            data = read(commands, forecaster, source, how)
        if folder is None:  # nothing will be predicted, so what only predictions need is left out
            forecaster.set_params(**forecaster.comparison_settings)
        train(commands, forecaster, data, how, folder, overwrite, as_json)
        write(forecaster, file)

    file_or_run = argument(
        help="CSV, Excel or Parquet file, or a run folder, whose data and settings are used.",
        metavar="FILE|RUN",
    )
    parameters = [
        parameter("source", str, file_or_run),
        *option_parameters(options),
        *option_parameters(windows, {"cutoffs": 5}),
        parameter(
            "out",
            Path | None,
            option(
                help="Run folder to write, or a table (.csv, .xlsx, ...) for forecasts and truth.  [default: none]"
            ),
            None,
        ),
        parameter("overwrite", bool, option(help="Replace a run that is already there."), False),
        parameter("as_json", bool, JSON, False),
        parameter("quiet", bool, QUIET, False),
    ]
    return Command(
        "backtest", callback=backtest, params=parameters, help=_HELP, epilog=epilog("forecast backtest")
    )
