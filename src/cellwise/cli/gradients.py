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
        option(help="Comma-separated cells, by name or as FILE.py:Class.", metavar="CELLS"),
    ] = "rnn,lstm,gru",
    length: Annotated[int, option(help="Length T of the measured sequences.")] = 100,
    hidden_size: Annotated[int, option(help="Hidden size H.")] = 32,
    seeds: Annotated[int, option(help="Networks per cell and initialization.")] = 3,
    sequences: Annotated[int, option(help="Random sequences per network.")] = 8,
    bias: Annotated[
        float,
        option("--forget-bias", help="Added to the bias of the forget gate, which keeps the old state."),
    ] = 1.0,
    norm: Annotated[
        str,
        option(help="spectral: largest singular value; frobenius: RMS over random directions."),
    ] = "spectral",
    train: Annotated[
        bool, option("--train/--no-train", help="Also measure after training on the adding problem.")
    ] = True,
    train_length: Annotated[int, option(help="Length of the training sequences.")] = 30,
    updates: Annotated[int, option(help="Updates per training, at most.")] = 1000,
    clip: Annotated[float, option(help="Largest gradient norm in the clipped training.")] = 1.0,
    out: Annotated[
        Path | None,
        option(
            help="Figure to write (.png, .svg, .pdf); its numbers are saved beside it as .json.",
            metavar="FILE",
        ),
    ] = None,
    redraw: Annotated[
        Path | None,
        option(help="Redraw from the numbers of an earlier run, without measuring.", metavar="FILE.json"),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Measure the derivative of the last state with respect to each earlier one, and what makes it vanish.

    The derivatives are exact, in float64, over all states of a cell. They are measured with torch's initialization,
    with a bias on the forget gate (found in the equations), with orthogonal recurrent weights, and after training with
    and without clipping. About two minutes on one core; seconds with --no-train.
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
        click.echo(f"\nfigure: {out}, numbers: {redraw or result_path(out)}")
    say(f"{time.monotonic() - begin:.0f} s")


def _tell(study: GradientStudy) -> None:
    T = study.settings.length
    lags = [lag for lag in (1, 10, 20, 50) if lag < T] + [T]
    click.echo(
        f"{study.settings.norm.capitalize()} norm of the derivative of the last states with respect to those LAG steps "
        "earlier: geometric mean over sequences and seeds"
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
