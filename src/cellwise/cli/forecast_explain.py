"""`cellwise forecast explain RUN [FILE]`: what forecasts look at, and the same forecast with a covariate changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click

from cellwise.cli.command import argument, command, option
from cellwise.cli.examples import epilog
from cellwise.cli.output import Json, Quiet, check_file, say
from cellwise.cli.tasks import answer, read
from cellwise.tasks.commands import Answer
from cellwise.tasks.errors import TaskError
from cellwise.tasks.registry import Task

__all__ = ["make"]


def make(task: Task) -> click.Command:
    """The command."""
    commands = task.load_commands()

    def explain(
        run: Annotated[Path, argument(help="Run folder written by fit.", metavar="RUN")],
        source: Annotated[
            str | None, argument(help="Series to forecast.  [default: those of RUN]", metavar="[FILE]")
        ] = None,
        changes: Annotated[
            list[str] | None,
            option(
                "--set",
                help="Change a covariate known in advance: promo=0, price=-10%, or promo=0,1,1 with a value for each "
                "step; may be repeated.",
                metavar="COLUMN=VALUE",
            ),
        ] = None,
        horizon: Annotated[
            int | None,
            option("--horizon", "-H", help="Steps to forecast, with --set.  [default: as trained]"),
        ] = None,
        out: Annotated[Path | None, option(help="File to write.  [default: stdout]", metavar="FILE")] = None,
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        """Show what forecasts look at, or what they would be with a covariate changed.

        Without --set: how much the error on what was held out grows without each covariate, and which share of a
        forecast is due to it, to the calendar, and to the past of the series. With --set: both forecasts, and their
        difference. An influence on the forecast is not a cause of what happens."""
        if out is not None:
            if as_json:
                raise TaskError("--json prints the result, --out writes it to a file; give one of them")
            commands.check_out(out)
            check_file(out)
        if horizon is not None and not changes:
            raise TaskError("--horizon goes with --set: shares are those of a forecast as it was trained")
        forecaster: Any = task.load_estimator().load(run)
        table = forecaster.table_ if source is None else read(commands, forecaster, source, {}).data
        made = (
            _what_if(forecaster, table, changes, horizon)
            if changes
            else _influence(forecaster, table, source is None)
        )
        if out is None:
            answer(made, as_json)
        else:
            assert made.write is not None
            say(f"wrote {made.write(out)} to {out}")
            for remark in made.remarks:
                say(remark)

    return command(explain, "explain", epilog=epilog("forecast explain"))


def _what_if(forecaster: Any, table: Any, changes: list[str], horizon: int | None) -> Answer:
    """Both forecasts as a table, and a sentence on how they differ."""
    from cellwise.tasks.data.files import round_floats, to_csv
    from cellwise.tasks.forecasting.what_if import parse_changes, what_if

    steps = forecaster.horizon if horizon is None else horizon
    found = what_if(forecaster, table, parse_changes(changes), steps)
    frame = round_floats(found.frame(backend="polars"))
    return Answer(frame.to_dicts(), text=to_csv(frame), remarks=(found.sentence,), write=_writer(frame))


def _influence(forecaster: Any, table: Any, measured: bool) -> Answer:
    """One row for each thing that forecasts look at."""
    from cellwise.tasks.forecasting.looks import influence_frame, looks_of
    from cellwise.tasks.report.table import figure

    looks = looks_of(forecaster, table, measured)
    frame = influence_frame(looks, "polars")
    titles = ("what", "kind", "error grows by %", "share of the forecast %")
    rows = [(what, kind, figure(growth), figure(share)) for what, kind, growth, share in looks.rows]
    remarks = [
        "Error: on what was held out, when the column tells of another time. Share: of what moves a forecast away from "
        "the level of the last season (Shapley values)."
    ]
    if not looks.growth and looks.groups:
        remarks.append("Nothing was measured here, so it is not known how much the error grows.")
    return Answer(frame.to_dicts(), table=(titles, rows), remarks=tuple(remarks), write=_writer(frame))


def _writer(frame: Any) -> Any:
    from cellwise.tasks.data.files import write_file

    def write(path: Path) -> str:
        write_file(frame, path)
        return f"{frame.height:,} rows"

    return write
