"""`cellwise compare-cells [CELL ...]`: cells against cells, on the same problems, at equal parameters or equal time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from cellwise.cells.base import Cell
from cellwise.cli.cell_argument import HELP, cell_of, complete
from cellwise.cli.command import argument, option
from cellwise.cli.experiment import listed
from cellwise.cli.output import Json, Quiet, is_quiet, print_json, print_table, say

if TYPE_CHECKING:
    from cellwise.experiments.bakeoff.ranking import Standing, Table
    from cellwise.experiments.bakeoff.record import Run
    from cellwise.experiments.bakeoff.study import Bakeoff, Job

_ALL = "all"
_PROBLEMS = ("recall", "adding", "digits", "characters", "forecast")
_CELLS = ("rnn", "lstm", "gru")
_PICTURE = "comparison.svg"


def compare_cells(
    names: Annotated[
        list[str] | None,
        argument(
            metavar="[CELL ...]",
            help=f"{HELP} {_ALL}: every cell that ships.  [default: {' '.join(_CELLS)}]",
            shell_complete=complete,
        ),
    ] = None,
    problems: Annotated[str, option(help="Comma-separated problems.", metavar="PROBLEMS")] = ",".join(
        _PROBLEMS
    ),
    parameters: Annotated[
        int,
        option(
            help="Parameters of every network; each cell has the hidden size that comes nearest.", metavar="N"
        ),
    ] = 5000,
    updates: Annotated[int, option(help="Updates of every training.", metavar="N")] = 500,
    seconds: Annotated[
        float | None,
        option(
            help="Equal time: train for so many seconds of processor time, instead of so many updates.",
            metavar="SECONDS",
        ),
    ] = None,
    seeds: Annotated[int, option(help="Trainings of each cell on each problem.", metavar="N")] = 1,
    learning_rate: Annotated[
        float | None, option(help="The same for all.  [default: each problem's own]", metavar="RATE")
    ] = None,
    minutes: Annotated[
        float | None, option(help="Begin no training after so many minutes.  [default: no limit]")
    ] = None,
    out: Annotated[Path, option(help="Folder for runs.csv and the picture.", metavar="FOLDER")] = Path(
        "runs/compare-cells"
    ),
    overwrite: Annotated[
        bool,
        option(
            "--overwrite", help="Begin anew with these cells and problems: forget their runs in the folder."
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train small networks of each cell on five problems, and rank the cells.

    recall: name symbols after a silence. adding: add the two marked numbers of a sequence. digits: which handwritten
    digit is it, pixel by pixel. characters: the next character of Moby-Dick. forecast: births in the United States, a
    week ahead. Lower is better in all of them.

    Every network has the same number of parameters, and gets the same updates or, with --seconds, the same processor
    time. No cell is tuned: all have the learning rate of the problem. Every training is added to runs.csv as soon as it
    is over, so that nothing is lost: the same command goes on, and with more cells, problems or seeds it adds to them.
    """
    from cellwise.experiments.bakeoff.ranking import table_of
    from cellwise.experiments.bakeoff.study import BakeoffSettings
    from cellwise.experiments.bakeoff.study import compare_cells as compare

    settings = BakeoffSettings(
        tuple(listed(problems, "problems")), parameters, updates, seconds, seeds, learning_rate, minutes
    )
    found = compare(_cells(names or _CELLS), settings, out, overwrite, _Watching())
    table = table_of(found.runs)
    if as_json:
        print_json(_value(found, table, out))
    else:
        _tell(found, table)
        _draw(table, out / _PICTURE)
    for why in found.left_out.values():
        say(f"note: {why}")
    if found.missing:
        said = "the time is over" if found.ended == "time" else "stopped"
        left = "1 training is" if found.missing == 1 else f"{found.missing} trainings are"
        say(f"{said}; {left} left, and the same command goes on")
    if found.ended == "stopped":
        raise click.exceptions.Exit(found.status)


def _cells(names: Sequence[str]) -> list[Cell]:
    """The cells that were named, each once."""
    from cellwise import cells

    texts = dict.fromkeys(name for each in names for name in (cells.names() if each == _ALL else (each,)))
    return [cell_of(text) for text in texts]


class _Watching:
    """A line a training on stderr; on a terminal the updates pass by in the line of the one to come."""

    def __init__(self) -> None:
        from cellwise.tasks.training.live_line import LiveLine

        self._line, self._number, self._total = LiveLine(), 0, 0

    def start(self, done: int, total: int) -> None:
        self._number, self._total = done, total
        if done and not is_quiet():
            self._line.keep(f"going on after {done} of {total} trainings")

    def update(self, job: Job, updates: int) -> None:
        if not is_quiet():
            self._line.show(f"{self._number + 1}/{self._total}  {job}  {updates} updates")

    def run(self, run: Run) -> None:
        self._number += 1
        if not is_quiet():
            told = "diverged" if run.score is None else f"{run.score:.4g}"
            self._line.keep(
                f"{self._number}/{self._total}  {run.problem}: {run.cell}, seed {run.seed}  {told}  "
                f"{run.updates} updates  {run.seconds:.1f} s"
            )


def _tell(found: Bakeoff, table: Table) -> None:
    from cellwise.experiments.bakeoff.problems import PROBLEMS

    if not found.runs:
        return
    run = found.runs[0]
    each = (
        f"{run.update_budget:,} updates"
        if run.second_budget is None
        else f"{run.second_budget:g} s of processor time"
    )
    click.echo(
        f"Networks of about {run.parameter_budget:,} parameters, {each} each; lower is better everywhere"
    )
    rows = [_row(table, standing) for standing in table.standings]
    simple = [
        "a simple method",
        "",
        *(f"{PROBLEMS[name].simple_score():.4g}" for name in table.problems),
        "",
        "",
    ]
    print_table(("cell", "mean rank", *table.problems, "ms an update", "seeds"), [*rows, simple])
    for name in table.problems:
        problem = PROBLEMS[name]
        click.echo(f"{name}: {problem.measure}; {problem.about}. Simple: {problem.simple}")


def _row(table: Table, standing: Standing) -> list[str]:
    found = standing.results
    figures = [found[name].text if name in found else "-" for name in table.problems]
    rank = f"{standing.mean_rank:.1f}" if table.is_whole(standing) else f"({standing.mean_rank:.1f})"
    return [standing.cell, rank, *figures, f"{standing.milliseconds:.1f}", standing.seeds]


def _value(found: Bakeoff, table: Table, folder: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from cellwise.experiments.bakeoff.problems import PROBLEMS

    return {
        "folder": str(folder),
        "ended": found.ended,
        "missing": found.missing,
        "left_out": found.left_out,
        "problems": {
            name: {
                "measure": PROBLEMS[name].measure,
                "simple": PROBLEMS[name].simple,
                "simple_score": PROBLEMS[name].simple_score(),
            }
            for name in table.problems
        },
        "cells": [
            {
                "cell": standing.cell,
                "mean_rank": standing.mean_rank,
                "milliseconds_per_update": standing.milliseconds,
                "problems": {name: _result(each) for name, each in standing.results.items()},
            }
            for standing in table.standings
        ],
        "runs": [asdict(run) for run in found.runs],
    }


def _result(result: Any) -> dict[str, Any]:
    sample = result.sample
    return {
        "rank": result.rank,
        "mean": None if sample is None else sample.mean,
        "spread": None if sample is None else sample.spread,
        "scores": result.scores,
        "diverged": result.diverged,
        "hidden_size": result.runs[0].hidden_size,
        "parameters": result.runs[0].parameters,
    }


def _draw(table: Table, path: Path) -> None:
    """The picture, where matplotlib is installed."""
    from cellwise.experiments.bakeoff.plot import draw_bakeoff
    from cellwise.understand.figures import FigureError, save

    if not table.standings:
        return
    try:
        save(draw_bakeoff(table), path)
    except FigureError as error:
        say(f"no picture: {error}")
        return
    say(f"picture: {path}")
