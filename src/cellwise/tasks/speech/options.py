"""The options of a recogniser, each declared once."""

from __future__ import annotations

from cellwise.tasks.common_options import NETWORK, TRAINING, CommonOptions
from cellwise.tasks.options import Range, option, with_options

__all__ = ["PredictOptions", "SpeechOptions"]

DATA, DECODING = "data", "decoding"


@with_options
class SpeechOptions(CommonOptions):
    """The options of a recogniser: data, network, training and decoding."""

    rate: int | None = option(
        default=None,
        help="Samples a second that the network hears; recordings of other rates are resampled.",
        at_least=4_000,
        at_most=48_000,
        none="that of most recordings, 16000 at most",
        group=DATA,
    )
    bands: int = option(
        default=40, help="Bands of the log-mel features.", at_least=8, at_most=256, group=DATA
    )
    normalization: str = option(
        default="letters",
        help="What transcripts keep: letters, digits and apostrophes in lower case, or all but double spaces.",
        choices=("letters", "spaces"),
        group=DATA,
    )
    unit: str = option(
        default="characters",
        help="What the network writes: characters, or subwords that are learned from the transcripts, which suit hours "
        "of speech.",
        choices=("characters", "subwords"),
        group=NETWORK,
    )
    subwords: int = option(
        default=500,
        help="Size of the vocabulary with --unit subwords, 256 single bytes included.",
        at_least=257,
        at_most=5000,
        group=NETWORK,
    )
    language: str = option(
        default="words",
        help="Language model of the search: words, which spells those it has never seen, or characters alone.",
        choices=("words", "characters"),
        group=DECODING,
    )
    language_text: str | None = option(
        default=None,
        help="Text file with sentences, one a line, that the language model learns beside the transcripts.",
        metavar="FILE",
        none="the transcripts alone",
        group=DECODING,
    )
    language_arpa: str | None = option(
        default=None,
        help="File in ARPA's format with an n-gram model of words, as KenLM and SRILM write it, for --language words.",
        metavar="FILE",
        none="one that is learned",
        group=DECODING,
    )
    language_run: str | None = option(
        default=None,
        help="Run folder of `cellwise text fit` with --unit characters or bytes, to be used for characters and for "
        "spelling.",
        metavar="RUN",
        none="an n-gram model that is learned",
        group=DECODING,
    )
    streaming: bool = option(
        default=False,
        help="Read in one direction only, so that text comes while it is spoken; it errs more.",
        group=NETWORK,
    )
    reduction: int = option(
        default=3,
        help="Frames of 10 ms per step of the recurrent layers; more are faster, and too many hold no fast speech.",
        at_least=1,
        at_most=8,
        group=NETWORK,
    )
    masking: bool = option(
        default=True,
        help="Hide some bands and some moments of each recording in training (SpecAugment).",
        group=TRAINING,
    )
    speed: float = option(
        default=0.1,
        help="Play recordings up to this share faster or slower in training.",
        at_least=0.0,
        at_most=0.4,
        group=TRAINING,
        search=Range(0.0, 0.2),
    )
    noise: float = option(
        default=0.3,
        help="Share of the recordings that get noise and another loudness in training.",
        at_least=0.0,
        at_most=1.0,
        group=TRAINING,
        search=Range(0.0, 0.6),
    )
    beam: int = option(
        default=32,
        help="Beginnings of texts that the search keeps; 1 takes the best path, without the language model.",
        at_least=1,
        at_most=1024,
        group=DECODING,
    )
    hidden_size: int = 128
    num_layers: int = 2
    dropout: float = 0.2
    batch_size: int = 8
    patience: int | None = 30


@with_options
class PredictOptions:
    """What only `predict` takes."""

    live: bool = option(
        default=False,
        help="Read raw audio from standard input (16 bits, one channel) and write text while it is spoken; needs a run "
        "of `fit --streaming`.",
        flag="--streaming",
    )
    raw_rate: int | None = option(
        default=None,
        help="Samples a second of that raw audio.",
        at_least=4_000,
        at_most=768_000,
        none="that of the network",
        metavar="RATE",
    )
