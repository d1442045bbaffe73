"""`cellwise gradients`: how far gradients reach, and what helps them."""

from __future__ import annotations

import math
import time
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
    read_study,
    say_answers,
)
from cellwise.cli.output import Quiet, print_table, say

if TYPE_CHECKING:
    from cellwise.experiments.vanishing_gradients import Curve, GradientStudy


def gradients(
    cells: Annotated[
        str,
        option(help="Cells with commas between them, by name or as FILE.py:Class.", metavar="CELLS"),
    ] = "rnn,lstm,gru",
    length: Annotated[int, option(help="Steps T of the measured sequences.")] = 100,
    hidden_size: Annotated[int, option(help="Size H of each state.")] = 32,
    seeds: Annotated[int, option(help="Networks of each kind.")] = 3,
    sequences: Annotated[int, option(help="Random sequences for each network.")] = 8,
    bias: Annotated[
        float, option("--forget-bias", help="Added to the bias of the gate that keeps the old state.")
    ] = 1.0,
    norm: Annotated[
        str,
        option(help="spectral: the largest factor. frobenius: that of a random direction, root mean square."),
    ] = "spectral",
    train: Annotated[
        bool, option("--train/--no-train", help="Measure also after training on the adding problem.")
    ] = True,
    train_length: Annotated[int, option(help="Numbers in the sequences trained on.")] = 30,
    updates: Annotated[int, option(help="Updates of a training, at most.")] = 1000,
    clip: Annotated[float, option(help="Largest norm of the weights' gradient in training.")] = 1.0,
    out: Annotated[
        Path | None,
        option(
            help="Picture to draw, .png, .svg or .pdf; the numbers lie beside it as .json.", metavar="FILE"
        ),
    ] = None,
    redraw: Annotated[
        Path | None,
        option(help="Measure nothing; take the numbers of an earlier run.", metavar="FILE.json"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure the derivative of the last state by each earlier one, and what makes it vanish or last.

    It is exact, in float64, for all states of a cell together: at the start as torch draws the weights, with a bias on
    the gate that keeps the state (found in the equations), with orthogonal recurrent weights, and after training, with
    and without clipping. About two minutes of work for one core; --no-train takes seconds.
    """
    from cellwise.experiments.vanishing_gradients import GradientStudy, StudySettings, study_gradients
    from cellwise.understand.figures import result_path, save_json

    check_figure(out)
    begin = time.monotonic()
    if redraw is not None:
        study = read_study(redraw, "gradients", GradientStudy)
    else:
        asked = [cell_of(text) for text in listed(cells, "cells")]
        settings = StudySettings(
            length, hidden_size, seeds, sequences, bias, norm, train, train_length, updates, clip
        )
        with Working() as working:
            study = study_gradients(asked, settings, working.now)
    _tell(study)
    say_answers(gradients=study)
    if out is not None:
        _draw(study, out)
        if redraw is None:
            save_json(result_path(out), "gradients", study, about())
        click.echo(f"\npicture: {out}, numbers: {redraw or result_path(out)}")
    say(f"{time.monotonic() - begin:.0f} s")


def _tell(study: GradientStudy) -> None:
    T = study.settings.length
    lags = [lag for lag in (1, 10, 20, 50) if lag < T] + [T]
    click.echo(
        f"{study.settings.norm.capitalize()} norm of the derivative of the last states by those LAG steps earlier: "
        "geometric mean over sequences and seeds"
    )
    columns = (
        "cell",
        "start",
        "trained",
        *(f"lag {lag}" for lag in lags),
        "per step",
        "10 to 90 % at the end",
        "learned",
    )
    rows = []
    for index, curve in enumerate(study.curves):
        name = curve.cell if index == 0 or study.curves[index - 1].cell != curve.cell else ""
        rows.append([name, _start(curve, study), _trained(curve), *_figures(curve, lags)])
    print_table(columns, rows, left=3)
    for note in study.notes:
        click.echo(f"note: {note}")


def _start(curve: Curve, study: GradientStudy) -> str:
    return f"bias +{study.settings.bias:g}" if curve.start == "forget bias" else curve.start


def _trained(curve: Curve) -> str:
    return "" if curve.training is None else "clipped" if curve.clipped else "unclipped"


def _figures(curve: Curve, lags: list[int]) -> list[str]:
    rate = "zero" if math.isnan(curve.rate) else f"{curve.rate:.3f}"
    learned = "" if curve.training is None else f"{curve.training.solved} of {curve.training.seeds}"
    band = f"{curve.low[-1]:.0e} to {curve.high[-1]:.0e}"
    return [*(f"{curve.at(lag):.1e}" for lag in lags), rate, band, learned]


def _draw(study: GradientStudy, out: Path) -> None:
    from cellwise.experiments.vanishing_gradients_plot import draw_gradients
    from cellwise.understand.figures import save

    save(draw_gradients(study), out)
