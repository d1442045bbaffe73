"""The command line of forecasting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cellwise.tasks.commands import Answer, Demo, Reading, TaskCommands, Word, Words
from cellwise.tasks.data.standard_input import file_of
from cellwise.tasks.options import option, with_options

if TYPE_CHECKING:
    from cellwise.tasks.forecasting.forecaster import Forecaster

__all__ = ["Ahead", "Commands", "Measuring"]


@with_options
class Ahead:
    """How far `predict` goes."""

    horizon: int | None = option(
        default=None,
        help="Steps to forecast; may exceed the trained horizon.",
        at_least=1,
        at_most=100_000,
        flag=("--horizon", "-H"),
        none="as trained",
    )
    wide: bool = option(
        default=False,
        help="Write the medians as a wide table: one column per series, or one row where the data had one. An .xlsx "
        "holds a sheet for each bound of the bands too.",
    )


@with_options
class Measuring:
    """Where `evaluate` measures."""

    cutoffs: int = option(
        default=1,
        help="Cutoffs at the end of the data to forecast from.",
        at_least=1,
        at_most=10_000,
    )
    step: int | None = option(
        default=None, help="Steps between two cutoffs.", at_least=1, at_most=1_000_000, none="one horizon"
    )
    by: str = option(
        default="all",
        help="One row per model, or per model and series, or per model and step of the horizon.",
        choices=("all", "series", "horizon"),
    )


class Commands(TaskCommands):
    """`cellwise forecast`."""

    data = Word(
        "FILE",
        "CSV, Excel or Parquet file in long format, or wide with --wide; or a .tsf file; - for standard input; or the "
        "bundled 'us-births'.",
    )
    start = Word("[FILE]", "Series to forecast, also new ones.  [default: those of RUN]")
    predict_options = Ahead
    evaluate_options = Measuring
    read_options = ("date_format", "decimal", "encoding", "sheet", "drop")
    demo = Demo(
        "us-births",
        "US births per day, Social Security Administration (public domain)",
        "runs/demo",
        settings={"horizon": 28, "known": ["holiday", "near_holiday"], "hidden_size": 64, "epochs": 60},
        fit_settings={"cutoffs": 24, "step": 15},
    )
    words: ClassVar = {
        "": Words(
            "",
            "Forecast series with a recurrent network: fit, predict, backtest.",
            (
                "cellwise forecast demo",
                "cellwise forecast fit sales.csv --horizon 28",
                "cellwise forecast predict runs/sales-gru",
            ),
        ),
        "fit": Words(
            "Train on a file of series.",
            "Train on FILE and write a run folder with weights and report.html. Forecasts are a mean of the network "
            "and the best simple method; --no-ensemble leaves the network alone.\n\n"
            "Run the same command again to resume an interrupted training.",
            (
                "cellwise forecast fit sales.csv --horizon 28",
                "cellwise forecast fit sales.csv -H 28 --id store --time day --target sold --known price",
                "cellwise forecast fit sales.xlsx -H 12 --wide --drop Total",
                "cellwise forecast fit sales.csv -H 28 --holidays US --cell my_cells.py:MGU --out runs/mine",
            ),
        ),
        "predict": Words(
            "Forecast with a trained network.",
            "Forecast with a trained network: the median and the bands after the end of every series.",
            (
                "cellwise forecast predict runs/sales-gru",
                "cellwise forecast predict runs/sales-gru newer.csv --out forecast.csv",
                "cellwise forecast predict runs/sales-gru --wide --out forecast.xlsx",
                "cellwise forecast predict runs/sales-gru --horizon 14 --json",
            ),
        ),
        "evaluate": Words(
            "Measure a trained network on series.",
            "Measure a trained network at the end of the series in FILE, without training it further, and compare it "
            "with simple methods.",
            (
                "cellwise forecast evaluate runs/sales-gru newer.csv",
                "cellwise forecast evaluate runs/sales-gru newer.csv --cutoffs 6 --by series --json",
            ),
        ),
        "demo": Words(
            "Train on US births: under a minute.",
            "Train on fifteen years of daily US births and measure the last one: under a minute.\n\n"
            "The births of the last year are held out; 24 forecasts of 28 days are made within it, and "
            "compared with simple methods. Holidays are given as covariates known in advance.",
            ("cellwise forecast demo", "cellwise forecast demo --cell lstm --out runs/births"),
        ),
    }

    def read(self, estimator: Forecaster, source: str) -> Reading:
        """A table of series, with notes on the gaps that were filled."""
        from cellwise.tasks.forecasting.datasets import bundled
        from cellwise.tasks.forecasting.report import describe

        shipped = None if Path(source).exists() else bundled(source)
        if shipped is not None:
            table = estimator.read(shipped)
        else:
            with file_of(source) as path:
                table = estimator.read(path)
        return Reading(table, describe(table.panel), table.notes)

    def learned(self, estimator: Forecaster) -> Answer:
        """The scores on the held-out windows, by model; overall and by step of the horizon."""
        from cellwise.tasks.forecasting.report import measured_on
        from cellwise.tasks.forecasting.tables import judge, scores_table

        measured = estimator.backtest_
        if measured is None:
            sentence = "the series are too short to hold anything out, so nothing can be measured"
            return Answer(None, remarks=(sentence,))
        scores = measured.scores()
        table, said = scores_table(scores, measured.levels), judge(scores, measured)
        value = {
            "model": measured.model,
            "horizon": measured.horizon,
            "windows": measured.count,
            "levels": measured.levels,
            "held_out": "test" if estimator.backtest_is_test_ else "validation",
            "verdict": said.to_dict(),
            "scores": {
                name: {"overall": each.overall, "by_horizon": each.by_horizon}
                for name, each in scores.items()
            },
        }
        return Answer(
            value,
            table=(
                ("model", *table.columns),
                [(row.name, *(cell.text for cell in row.cells)) for row in table.rows],
            ),
            remarks=(measured_on(estimator), f"WARNING: {said.text}" if said.is_alarming else said.text),
        )

    def predict(self, estimator: Forecaster, data: Any, *, wide: bool = False, **options: Any) -> Answer:
        """The forecasts as a table."""
        from cellwise.tasks.data.files import round_floats, to_csv, write_file
        from cellwise.tasks.forecasting.exports import forecast_of
        from cellwise.tasks.forecasting.wide import wide_frames

        made, schema = forecast_of(estimator, data, **options)
        sheets = {"forecast": round_floats(made)}
        remarks: tuple[str, ...] = ()
        if wide:
            sheets = wide_frames(sheets["forecast"], schema.id, schema.time, schema.layout)
            remarks = (
                "these are the medians; the bands are in the table without --wide, and in an .xlsx file",
            )
        first = sheets["forecast"]

        def write(path: Path) -> str:
            write_file(sheets, path)
            several = f" in each of {len(sheets)} sheets" if wide and path.suffix.lower() == ".xlsx" else ""
            return f"{first.height:,} rows{several}"

        return Answer(first.to_dicts(), text=to_csv(first), remarks=remarks, write=write)

    def evaluate(self, estimator: Forecaster, data: Any, **options: Any) -> Answer:
        """The scores of the models, one row each."""
        from cellwise.tasks.data.files import round_floats, write_rows
        from cellwise.tasks.report.table import figure

        scores = estimator.evaluate(data, **options)
        columns = [name for name in scores.columns if not name.startswith(("width", "scaled"))]
        titles = [f"{name} %" if name.startswith("coverage") else name for name in columns]
        shown = scores.select(columns).rows()
        rows = [[each if isinstance(each, str) else figure(each) for each in row] for row in shown]
        steps, count = data.panel.frequency.many(estimator.horizon), options["cutoffs"]
        windows = f"the last {count:,} windows" if count > 1 else "the last window"
        remark = f"Measured on {windows} of {steps}; too good to be true if the network was trained on these values."
        return Answer(
            scores.to_dicts(),
            table=(titles, rows),
            remarks=(remark,),
            write=lambda path: write_rows(round_floats(scores), path),
        )

    def check_out(self, path: Path) -> None:
        """Refuse a file name that no table can be written to."""
        from cellwise.tasks.data.files import check_writable

        check_writable(path)
