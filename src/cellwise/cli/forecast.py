"""`cellwise forecast fit|predict|backtest|demo|check|report`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from cellwise.cli import forecast_options as options
from cellwise.cli.cell_argument import cell_argument
from cellwise.cli.command import Group, argument, command, option
from cellwise.cli.examples import epilog
from cellwise.cli.forecast_check import check
from cellwise.cli.forecast_report import report
from cellwise.cli.output import Json, Quiet, check_file, is_quiet, print_json, print_table
from cellwise.cli.output import say as _say
from cellwise.tasks.errors import ReportWarning, TaskError

if TYPE_CHECKING:
    from cellwise.tasks.forecasting.forecaster import Forecaster
    from cellwise.tasks.forecasting.frames import Table
    from cellwise.tasks.forecasting.metrics import Scores

__all__ = ["group"]


def fit(
    file: options.File,
    horizon: options.Horizon,
    out: Annotated[Path | None, option(help="Run folder.  [default: runs/NAME-CELL]")] = None,
    cell: options.Cell = "gru",
    freq: options.Frequency = None,
    season: options.Season = None,
    id: options.Id = "unique_id",
    time: options.Time = "ds",
    target: options.Target = "y",
    known: options.Known = None,
    past: options.Past = None,
    level: options.Levels = None,
    hidden_size: options.HiddenSize = 128,
    layers: options.Layers = 1,
    dropout: options.Dropout = 0.1,
    members: options.Members = 1,
    epochs: options.Epochs = 20,
    learning_rate: options.LearningRate = 3e-3,
    validation: options.Validation = None,
    cutoffs: options.Cutoffs = 0,
    step: options.Step = None,
    seed: options.Seed = 0,
    date_format: options.DateFormat = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    overwrite: options.Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train on FILE and write a run folder with weights and report.html.

    The same command goes on with an interrupted run.
    """
    forecaster = _forecaster(
        cell, horizon, freq, season, id, time, target, known, past, level,
        hidden_size, layers, dropout, members, epochs, learning_rate, validation, seed,
        date_format, decimal, encoding,
    )  # fmt: skip
    table = _read(forecaster, file)
    folder = out or Path("runs") / f"{_stem(file)}-{forecaster.model_name.lower()}"
    _train(forecaster, table, folder, cutoffs, step, overwrite)
    _say(f"forecast with: cellwise forecast predict {folder}")


def predict(
    run: Annotated[Path, argument(help="Run folder that fit wrote.", metavar="RUN")],
    file: Annotated[
        str | None,
        argument(help="Series to continue, also new ones.  [default: those of RUN]", metavar="[FILE]"),
    ] = None,
    horizon: Annotated[
        int | None,
        option("--horizon", "-H", help="Steps to forecast, also more than trained.  [default: as trained]"),
    ] = None,
    out: Annotated[
        Path | None, option(help="CSV or Parquet file to write.  [default: print CSV]", metavar="FILE")
    ] = None,
    date_format: options.DateFormat = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forecast with a trained network: the median and the bands after the end of every series."""
    from cellwise.tasks.data.files import check_writable, round_floats, to_csv, write_file
    from cellwise.tasks.forecasting.forecaster import Forecaster

    if out is not None:
        if as_json:
            raise TaskError("--json prints the forecast, and --out writes it into a file; give one of them")
        check_writable(out)
        check_file(out, makes_folder=True)
    forecaster = Forecaster.load(run)
    told = {"date_format": date_format, "decimal": decimal, "encoding": encoding}
    forecaster.set_params(**{name: value for name, value in told.items() if value is not None})
    table = None if file is None else forecaster.read(_source(file))
    for note in () if table is None else table.notes:
        _say(f"note: {note}")
    made = round_floats(forecaster.predict(table, horizon))
    if as_json:
        print_json(made.to_dicts())
    elif out is None:
        sys.stdout.write(to_csv(made))
    else:
        write_file(made, out)
        _say(f"wrote {made.height:,} rows to {out}")


def backtest(
    source: Annotated[
        str,
        argument(
            help="CSV or Parquet file, or the folder of a run whose data and settings are taken.",
            metavar="FILE|RUN",
        ),
    ],
    horizon: Annotated[
        int | None, option("--horizon", "-H", help="How many steps to forecast (for a FILE).")
    ] = None,
    cutoffs: options.Cutoffs = 5,
    step: options.Step = None,
    out: Annotated[Path | None, option(help="Run folder to keep.  [default: none]")] = None,
    cell: options.Cell = "gru",
    freq: options.Frequency = None,
    season: options.Season = None,
    id: options.Id = "unique_id",
    time: options.Time = "ds",
    target: options.Target = "y",
    known: options.Known = None,
    past: options.Past = None,
    level: options.Levels = None,
    hidden_size: options.HiddenSize = 128,
    layers: options.Layers = 1,
    dropout: options.Dropout = 0.1,
    members: options.Members = 1,
    epochs: options.Epochs = 20,
    learning_rate: options.LearningRate = 3e-3,
    validation: options.Validation = None,
    seed: options.Seed = 0,
    date_format: options.DateFormat = None,
    decimal: options.Decimal = None,
    encoding: options.Encoding = None,
    overwrite: options.Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure forecasts of the past, beside the seasonal naive forecast.

    A network learns from what lies before the first cutoff, then forecasts one horizon after each. A RUN
    that kept at least so many test windows from its training is measured as it is."""
    from cellwise.tasks.forecasting.forecaster import Forecaster

    if cutoffs < 1:
        raise TaskError(f"a backtest needs at least one cutoff, not {cutoffs}")
    if Path(source).is_dir():
        trained = Forecaster.load(Path(source))
        if trained.kept_from_training(cutoffs, step):
            _tell_scores(trained, as_json)
            return
        forecaster, table = Forecaster(**trained.get_params()), trained.table_
        _say(
            "this run has trained on the windows to be measured, so a fresh network is trained with its settings"
        )
    else:
        if horizon is None:
            raise TaskError("a backtest of a file needs --horizon")
        forecaster = _forecaster(
            cell, horizon, freq, season, id, time, target, known, past, level,
            hidden_size, layers, dropout, members, epochs, learning_rate, validation, seed,
            date_format, decimal, encoding,
        )  # fmt: skip
        table = _read(forecaster, source)
    _train(forecaster, table, out, cutoffs, step, overwrite, as_json)


def demo(
    out: Annotated[Path, option(help="Run folder.")] = Path("runs/demo"),
    cell: options.Cell = "gru",
    epochs: options.Epochs = 60,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train on fifteen years of daily US births and measure the last one: under a minute.

    The births of the last year are kept from training; 24 forecasts of 28 days are made within it, and
    compared with the seasonal naive forecast. Holidays are given as covariates known in advance."""
    from cellwise.tasks import Forecaster

    forecaster = Forecaster(
        cell_argument(cell), 28, known=["holiday", "near_holiday"], hidden_size=64, epochs=epochs, seed=seed
    )
    _say("US births per day, Social Security Administration (public domain)")
    table = _read(forecaster, "us-births")
    _train(forecaster, table, out, cutoffs=24, step=15, overwrite=overwrite)


# Each with a line for the list of commands.
_COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "fit": (fit, "Train on a file of series."),
    "predict": (predict, "Forecast with what was trained."),
    "backtest": (backtest, "Measure forecasts of the past."),
    "demo": (demo, "Train on US births: under a minute."),
    "check": (check, "See whether a run folder is whole."),
    "report": (report, "Make the report of a run again."),
}


def _load(name: str) -> click.Command:
    function, line = _COMMANDS[name]
    return command(function, name, short_help=line, epilog=epilog(f"forecast {name}"))


group = Group(
    "forecast",
    {name: line for name, (_, line) in _COMMANDS.items()},
    _load,
    help="Forecast series with a recurrent network: fit, predict, backtest.",
    epilog=epilog("forecast"),
)


def _forecaster(
    cell: str, horizon: int, freq: str | None, season: int | None, id: str, time: str, target: str,
    known: list[str] | None, past: list[str] | None, level: list[int] | None, hidden_size: int, layers: int,
    dropout: float, members: int, epochs: int, learning_rate: float, validation: int | None, seed: int,
    date_format: str | None, decimal: str | None, encoding: str | None,
) -> Forecaster:  # fmt: skip
    from cellwise.tasks import Forecaster

    return Forecaster(
        cell_argument(cell),
        horizon,
        freq=freq,
        season_length=season,
        known=options.names_of(known),
        past=options.names_of(past),
        id_column=id,
        time_column=time,
        target_column=target,
        levels=level or (80, 90),
        hidden_size=hidden_size,
        num_layers=layers,
        dropout=dropout,
        members=members,
        epochs=epochs,
        learning_rate=learning_rate,
        validation=validation,
        seed=seed,
        date_format=date_format,
        decimal=decimal,
        encoding=encoding,
    )


def _source(file: str) -> Any:
    """A path, or the bundled table of this name."""
    from cellwise.tasks.forecasting.datasets import bundled

    table = None if Path(file).exists() else bundled(file)
    return file if table is None else table


def _stem(file: str) -> str:
    return Path(file).name.partition(".")[0]


def _read(forecaster: Forecaster, file: str) -> Table:
    from cellwise.tasks.forecasting.options import check_options
    from cellwise.tasks.forecasting.report import describe

    check_options(forecaster)
    table = forecaster.read(_source(file))
    _say(describe(table.panel))
    for note in table.notes:
        _say(f"note: {note}")
    return table


def _train(
    forecaster: Forecaster,
    table: Table,
    folder: Path | None,
    cutoffs: int,
    step: int | None,
    overwrite: bool,
    as_json: bool = False,
) -> None:
    from cellwise.tasks.training.progress import choose_progress

    progress = choose_progress(False if is_quiet() else None, log=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReportWarning)  # it is said below, as a note
        forecaster.fit(
            table, folder=folder, overwrite=overwrite, cutoffs=cutoffs, step=step, progress=progress
        )
    trained = forecaster.trained_
    assert trained is not None
    for note in forecaster.notes_[len(table.notes) :]:
        _say(f"note: {note}")
    early = "stopped early" if trained.stopped_early else "done"
    resumed = f", resumed after {trained.resumed_after}" if trained.resumed_after else ""
    kept = f"kept those of epoch {trained.best.epoch}"
    epochs = f"{len(trained.epochs)} epoch{'s' * (len(trained.epochs) != 1)}"
    _say(f"{early} after {epochs}{resumed}, {kept}; {forecaster.seconds_:.0f} s")
    _tell_scores(forecaster, as_json)
    if folder is not None and (folder / "report.html").exists():
        _say(f"report: {folder / 'report.html'}")


def _tell_scores(forecaster: Forecaster, as_json: bool = False) -> None:
    """The table (or the figures as JSON) on stdout, what it means on stderr."""
    from cellwise.tasks.forecasting.report import measured_on
    from cellwise.tasks.forecasting.tables import scores_figures, verdict

    measured = forecaster.backtest_
    if measured is None:
        _say("the series are too short to hold anything out, so nothing can be measured")
        if as_json:
            print_json(None)
        return
    scores = measured.scores()
    if as_json:
        print_json(_facts(forecaster, scores))
    else:
        table = scores_figures(scores, measured.levels)
        rows = [(row.name, *(cell.text for cell in row.cells)) for row in table.rows]
        print_table(("model", *table.columns), rows)
    _say(measured_on(forecaster))
    _say(verdict(scores, measured)[0])


def _facts(forecaster: Forecaster, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """What a backtest measured: on what, and each model's figures, over all and by step of the horizon."""
    measured = forecaster.backtest_
    assert measured is not None
    return {
        "model": measured.model,
        "horizon": measured.horizon,
        "windows": measured.count,
        "levels": measured.levels,
        "held_out": "test" if forecaster.backtest_is_test_ else "validation",
        "scores": {
            name: {"overall": each.overall, "by_horizon": each.by_horizon} for name, each in scores.items()
        },
    }
