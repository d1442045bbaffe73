"""The options of sequence classifiers and regressors, each declared once."""

from __future__ import annotations

from collections.abc import Sequence

from cellwise.tasks.common_options import NETWORK, TRAINING, CommonOptions
from cellwise.tasks.options import Range, option, with_options

__all__ = ["ClassifyOptions", "RegressOptions", "SequenceOptions"]

DATA, TEXTS = "data", "texts"
POOLINGS = ("last", "mean", "max", "attention", "all")


@with_options
class SequenceOptions(CommonOptions):
    """What classifiers and regressors share: how data are laid out, the network, its training."""

    text_column: str = option(
        default="text", help="Column of the texts.", what="the name of a column", flag="--text", group=DATA
    )
    label_column: str = option(
        default="label", help="Column of the labels.", what="the name of a column", flag="--label", group=DATA
    )
    series_column: str = option(
        default="series",
        help="Column that names the series of a row, in a long table.",
        what="the name of a column",
        flag="--series",
        group=DATA,
    )
    step_column: str = option(
        default="step",
        help="Column of the steps, numbers or times; without it, rows are in order.",
        what="the name of a column",
        flag="--step",
        group=DATA,
    )
    channels: Sequence[str] = option(
        default=(),
        help="Columns of the values, once each or with commas; without them, all other columns.",
        what="names of columns",
        metavar="COLUMNS",
        group=DATA,
    )
    layout: str | None = option(
        default=None,
        help="Axes of an array of three: series, steps, channels or series, channels, steps.",
        choices=("ntc", "nct"),
        none="asked for",
        group=DATA,
    )
    missing: str = option(
        default="refuse",
        help="Missing values of a series: refuse them, or carry the last value forward.",
        choices=("refuse", "carry"),
        group=DATA,
    )
    encoding: str | None = option(
        default=None,
        help="Encoding of a text file, such as cp1252.",
        what="the name of an encoding",
        none="recognised",
        group=DATA,
    )
    decimal: str | None = option(
        default=None,
        help="Mark before decimals.",
        choices=(".", ","),
        none="recognised",
        group=DATA,
    )
    held_out: float | None = option(
        default=None,
        help="Share of the sequences held out to decide when to stop, where no validation data are given.",
        above=0.0,
        at_most=0.5,
        none="a tenth, and up to three tenths of a few",
        group=DATA,
    )
    refit: bool = option(
        default=True,
        help="Learn what was held out too, once the network is measured; never validation data that were given.",
        group=TRAINING,
    )
    directions: int = option(
        default=2,
        help="1 reads forwards, as a stream must; 2 reads backwards too.",
        at_least=1,
        at_most=2,
        group=NETWORK,
    )
    pooling: str | None = option(
        default=None,
        help="Summary of the steps; all: last, mean and max side by side.",
        choices=POOLINGS,
        none="max for series, mean for texts",
        group=NETWORK,
    )
    branch: str = option(
        default="auto",
        help="What the network is blended with: a linear model, or none; auto: linear, but none for series that are "
        "read in one direction, as a stream must.",
        choices=("auto", "linear", "none"),
        group=NETWORK,
    )
    augment: float = option(
        default=0.1,
        help="Strength of random stretching, scaling and noise in training; series only.",
        at_least=0.0,
        at_most=1.0,
        group=TRAINING,
        search=Range(0.0, 0.3),
    )
    unit: str | None = option(
        default=None,
        help="Tokens of a text.",
        choices=("words", "characters", "subwords"),
        none="words, or characters where texts have none, or are names; with --pretrained, those of that run",
        group=TEXTS,
    )
    pretrained: str | None = option(
        default=None,
        help="Run folder of `cellwise text`: its language model is what the network begins with, and decides the "
        "tokens and the sizes.",
        what="the path of a run folder",
        none="random weights",
        metavar="RUN",
        group=TEXTS,
    )
    min_count: int = option(
        default=2,
        help="Times that a token must occur to be known.",
        at_least=1,
        at_most=1_000_000,
        group=TEXTS,
    )
    subwords: int = option(
        default=2000,
        help="Size of the vocabulary, with --unit subwords.",
        at_least=257,
        at_most=100_000,
        group=TEXTS,
    )
    longest: int = option(
        default=2000,
        help="Tokens of a text that the network reads; of a longer one, its beginning and its end.",
        at_least=2,
        at_most=1_000_000,
        group=TEXTS,
    )
    embedding_size: int = option(
        default=64,
        help="Size of a token's embedding.",
        at_least=1,
        at_most=65_536,
        group=TEXTS,
        search=Range(16, 256, is_log=True),
    )
    embedding_dropout: float = option(
        default=0.3,
        help="Dropout probability of an embedding's components, the same for all steps of a text.",
        at_least=0.0,
        at_most=0.95,
        group=TEXTS,
        search=Range(0.0, 0.6),
    )
    word_dropout: float = option(
        default=0.1,
        help="Probability that a token is read as an unknown one in training.",
        at_least=0.0,
        at_most=0.95,
        group=TEXTS,
        search=Range(0.0, 0.4),
    )
    ngrams: int = option(
        default=2,
        help="Words in the longest n-gram of the linear model.",
        at_least=1,
        at_most=5,
        group=TEXTS,
    )
    hidden_size: int = 64
    dropout: float = 0.3
    epochs: int = 30
    batch_size: int = 32
    patience: int = 8


@with_options
class ClassifyOptions(SequenceOptions):
    """The options of a sequence classifier."""

    class_weight: str = option(
        default="none",
        help="Weight of an example in the loss; balanced: all classes count the same.",
        choices=("none", "balanced"),
        group=TRAINING,
    )
    label_smoothing: float = option(
        default=0.05,
        help="Share of a label that is spread over all classes in training.",
        at_least=0.0,
        at_most=0.5,
        group=TRAINING,
        search=Range(0.0, 0.2),
    )


@with_options
class RegressOptions(SequenceOptions):
    """The options of a sequence regressor."""
