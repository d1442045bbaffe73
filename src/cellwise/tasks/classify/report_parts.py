"""What the reports of classifiers and regressors share: what was measured on, the worst errors, the footer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from cellwise._version import __version__
from cellwise.tasks.classify import plots
from cellwise.tasks.classify.attribution import step_shares
from cellwise.tasks.classify.coloured import NARROW, ColouredText, coloured_texts
from cellwise.tasks.classify.encoders import TextEncoder
from cellwise.tasks.classify.examples import Examples
from cellwise.tasks.report.page import Chart, Section

if TYPE_CHECKING:
    from cellwise.tasks.classify.base import SequenceEstimator

__all__ = ["MOST_SHOWN", "Shown", "footer", "is_chance", "measured_on", "settings_of", "shown_section"]

MOST_SHOWN = 12
CHANCE = 0.05


@dataclass(frozen=True)
class Shown:
    """A sequence that a report shows: its row; what is said of it; the output whose causes are coloured."""

    row: int
    heading: str
    output: int = 0


def shown_section(
    title: str,
    model: SequenceEstimator,
    examples: Examples,
    shown: Sequence[Shown],
    words: tuple[str, str, str],
    factor: float = 1.0,
) -> Section | None:
    """Sequences with the words or steps that decided; None without any.

    words: what those in blue did, what those in orange did, and the unit of their shares. factor: from shares of the
    network's outputs to that unit."""
    if not shown:
        return None
    known, is_own = model._data, examples is model._data.valid
    network = model.measured_ if is_own else model.network_
    shares = [factor * step_shares(network, known, examples.inputs[each.row], each.output) for each in shown]
    blue, orange, unit = words
    encoder = known.encoder
    if isinstance(encoder, TextEncoder):
        texts = [
            ColouredText(
                each.heading, examples.inputs[each.row], encoder.spans(examples.inputs[each.row]), share
            )
            for each, share in zip(shown, shares, strict=True)
        ]
        svg, narrow = coloured_texts(texts), coloured_texts(texts, NARROW)
        caption = (
            f"Words that {blue} are blue, those {orange} orange, by gradient times input of the network and by what "
            f"the linear model says without the word. Point at one for its share, {unit}."
        )
    else:
        values = [encoder.encode(examples.inputs[each.row]).numpy() for each in shown]
        titles = [f"{examples.names[each.row]}: {each.heading}" for each in shown]
        svg, narrow = plots.mistakes_plot(values, shares, titles), ""
        caption = (
            "Lines: the channels that vary most, in units of their spread. Bars: how much each step "
            f"{blue} (blue) or {orange} (orange), by gradient times input."
        )
    return Section(title, charts=(Chart("mistakes", svg, caption, narrow),))


def measured_on(examples: Examples, is_test: bool, is_learned: bool, task: str) -> str:
    """What the figures were measured on, and how far one may believe them.

    is_test: whether neither training nor early stopping has seen it; is_learned: whether it was learned afterwards."""
    if is_test:
        return f"Measured on {examples.about()}, which training has not seen."
    return (
        f"Measured on {examples.about()} that were held out to decide when to stop: not trained on, but looked "
        "at, so a little flattering."
        + " Then the network has learned them too." * is_learned
        + f" `cellwise {task} evaluate` measures on others."
    )


def is_chance(won: int, lost: int) -> bool:
    """Whether equal models would differ at least so much in more than one of twenty cases: the sign test, two-sided
    (McNemar 1947, exact)."""
    count, few = won + lost, min(won, lost)
    if count > 1000:  # by then a normal distribution; the sum of binomials would be long
        return math.erfc(abs(won - lost) / math.sqrt(2 * count)) > CHANCE
    return 2 * sum(math.comb(count, each) for each in range(few + 1)) / 2**count > CHANCE


def settings_of(model: SequenceEstimator) -> dict[str, Any]:
    """The options, with the sizes of the language model that the network began with, if it did."""
    sizes = {} if model._data.sizes is None else asdict(model._data.sizes)
    return model.get_params() | {"cell": model.cell_name} | sizes


def footer(model: SequenceEstimator) -> str:
    """The versions, the size of the network and how long it was trained."""
    weights = sum(each.numel() for each in model.network_.parameters())
    trained = model.trained_
    epochs = "" if trained is None else f", {len(trained.epochs)} epochs, the best was {trained.best.epoch}"
    return (
        f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights{epochs}, seed {model.seed}."
    )
