"""`cellwise memory`: how long each cell can remember."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from cellwise.cli.cell_argument import cell_of
from cellwise.cli.command import option
from cellwise.cli.experiment import (
    Working,
    about,
    check_figure,
    listed,
    numbers,
    read_study,
    say_answers,
)
from cellwise.cli.output import Quiet, print_table, say

if TYPE_CHECKING:
    from cellwise.experiments.memory import Contender, MemoryStudy, Trial


def memory(
    cells: Annotated[
        str,
        option(
            help="Comma-separated cells, by name or as FILE.py:Class; lstm+1 adds 1 to the bias of the forget gate, "
            "which keeps the old state.",
            metavar="CELLS",
        ),
    ] = "rnn,lstm,lstm+1,gru",
    task: Annotated[
        str, option(help="recall, adding, parity (comma-separated), or all.", metavar="TASKS")
    ] = "all",
    lags: Annotated[
        str, option(help="Comma-separated lags to try, in increasing order.", metavar="LAGS")
    ] = "4,8,16,32,64,128",
    budget: Annotated[int, option(help="Updates per training, at most.")] = 1000,
    hidden_size: Annotated[int, option(help="Hidden size H.")] = 32,
    same: Annotated[
        str,
        option(help="What all cells have in common: units, or parameters (as many as a GRU of H units)."),
    ] = "units",
    seeds: Annotated[int, option(help="Trainings per cell, task and lag.")] = 2,
    minutes: Annotated[float, option(help="Time limit in minutes; 0 for none.")] = 5.0,
    backend: Annotated[str, option(help="Backend of the layers: auto, cpu, native or reference.")] = "auto",
    out: Annotated[
        Path | None,
        option(
            help="Figure to write (.png, .svg, .pdf); its numbers are saved beside it as .json.  [default: numbers "
            "only, in runs/memory.json]",
            metavar="FILE",
        ),
    ] = None,
    redraw: Annotated[
        Path | None,
        option(help="Redraw from the numbers of an earlier run, without measuring.", metavar="FILE.json"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Find the longest lag at which each cell learns to recall symbols, to add two numbers, and to count parity.

    Lags grow until every seed of a cell fails within the budget, or the time limit is reached. Finished trials are
    printed and saved, also after Ctrl-C.
    """
    from cellwise.experiments.memory import MemorySettings, MemoryStudy, study_memory
    from cellwise.experiments.memory_tasks import TASKS
    from cellwise.understand.figures import result_path, save_json

    check_figure(out)
    if redraw is not None:
        study = read_study(redraw, "memory", MemoryStudy)
    else:
        names = tuple(TASKS) if task == "all" else tuple(listed(task, "tasks"))
        limit = minutes or None
        settings = MemorySettings(
            names, numbers(lags, "lags"), budget, hidden_size, seeds, same, limit, backend
        )
        contenders = [_contender(text) for text in listed(cells, "cells")]
        with Working() as working:
            study = study_memory(contenders, settings, _Watching(working))
        path = Path("runs/memory.json") if out is None else result_path(out)
        save_json(path, "memory", study, about())
        say(f"{_ENDED[study.ended]} after {study.seconds:.0f} s; numbers: {path}")
    _tell(study)
    say_answers(memory=study)
    if out is not None:
        from cellwise.experiments.memory_plot import draw_memory
        from cellwise.understand.figures import save

        save(draw_memory(study), out)
        click.echo(f"\nfigure: {out}")
    if study.ended == "stopped" and redraw is None:
        raise click.exceptions.Exit(130)


_ENDED = {"done": "done", "time": "time limit reached", "stopped": "stopped"}


def _contender(text: str) -> Contender:
    """A cell, with or without an addition to the bias of its forget gate: lstm+1, FILE.py:Class+0.5."""
    from cellwise.experiments.memory import Contender

    name, plus, text_of_bias = text.rpartition("+")
    try:
        bias = float(text_of_bias) if plus else 0.0
    except ValueError:  # no number after the +, so it belongs to a name
        name, bias = text, 0.0
    return Contender(cell_of(name if plus else text), bias)


class _Watching:
    def __init__(self, working: Working) -> None:
        self._working = working

    def update(self, what: str, done: int, right: float) -> None:
        self._working.now(f"{what}: {done} updates, {right:.0%} right")

    def trial(self, trial: Trial) -> None:
        worked = f"{trial.solvers} of {len(trial.solved)} seeds learned it"
        took = f" in {trial.typical_updates} updates" if trial.solvers else f", {max(trial.right):.0%} right"
        self._working.done(
            f"{trial.task} at lag {trial.lag}: {trial.cell}, {worked}{took}, {trial.seconds:.1f} s"
        )


def _tell(study: MemoryStudy) -> None:
    from cellwise.experiments.memory_tasks import TASKS

    s = study.settings
    click.echo(
        f"The longest lag that each cell learned: at least 95 % of 512 fresh answers right in "
        f"{'the one seed' if s.seeds == 1 else f'one of {s.seeds} seeds'}, within {s.updates} updates"
    )
    tasks = [f"{task} (chance {TASKS[task].chance:.0%})" for task in s.tasks]
    rows = []
    for cell in study.cells:
        found = [_longest(study, task, cell) for task in s.tasks]
        rows.append([cell, *found, str(study.hidden_sizes[cell]), f"{study.parameters[cell]:,}"])
    print_table(("cell", *tasks, "units", "parameters"), rows)
    for task in s.tasks:
        click.echo(f"{task}: the lag is the {TASKS[task].meaning}; counted are {TASKS[task].counts}")


def _longest(study: MemoryStudy, task: str, cell: str) -> str:
    """The longest lag, how many seeds learned it, and what stopped the search."""
    trials = study.find(task, cell)
    if not trials:
        return "not tried"
    best = next((trial for trial in reversed(trials) if trial.solvers), None)
    if best is None:
        return f"none, {max(trials[-1].right):.0%} right at {trials[-1].lag}"
    more = " or more" if study.at_end_of_lags(task, cell) or study.cut_short(task, cell) else ""
    return f"{best.lag}{more} ({best.solvers} of {len(best.solved)})"
