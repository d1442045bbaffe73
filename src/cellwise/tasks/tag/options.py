"""The options of a tagger, each declared once."""

from __future__ import annotations

from cellwise.tasks.common_options import NETWORK, TRAINING, CommonOptions
from cellwise.tasks.options import Range, option, with_options

__all__ = ["TagOptions"]

DATA = "data"


@with_options
class TagOptions(CommonOptions):
    """The options of a tagger: data, network and training."""

    word_column: str | None = option(
        default=None,
        help="Column of the words, by number from 1, or by name (FORM).",
        metavar="COLUMN",
        none="the first; FORM in CoNLL-U",
        group=DATA,
    )
    tag_column: str | None = option(
        default=None,
        help="Column of the tags, by number from 1, or by name (UPOS).",
        metavar="COLUMN",
        none="the last; UPOS in CoNLL-U",
        group=DATA,
    )
    encoding: str | None = option(
        default=None,
        help="Encoding of a file, such as cp1252.",
        what="the name of an encoding",
        none="recognised",
        group=DATA,
    )
    bidirectional: bool = option(default=True, help="Read sentences in both directions.", group=NETWORK)
    crf: bool | None = option(
        default=None,
        help="Choose the tags of a sentence together, by a conditional random field.",
        none="where tags mark entities (B-, I-)",
        group=NETWORK,
    )
    branch: str = option(
        default="auto",
        help="What the network is blended with: a linear model on features of words, or none; auto: linear, but none "
        "for large corpora with many tags, where it would take long.",
        choices=("auto", "linear", "none"),
        group=NETWORK,
    )
    embedding_size: int = option(
        default=128,
        help="Size of a word's embedding.",
        at_least=1,
        at_most=65_536,
        group=NETWORK,
        search=Range(32, 256, is_log=True),
    )
    vocabulary_size: int = option(
        default=20_000,
        help="Words with an embedding of their own, at most, the most frequent ones; others are read by their letters.",
        at_least=1,
        at_most=10_000_000,
        group=NETWORK,
    )
    character_size: int = option(
        default=64,
        help="Units of the recurrent network over a word's letters, in each direction; 0 for none.",
        at_least=0,
        at_most=65_536,
        group=NETWORK,
        search=Range(16, 128, is_log=True),
    )
    word_dropout: float = option(
        default=0.5,
        help="A word seen n times in training is read as unknown with probability this / (this + n).",
        at_least=0.0,
        at_most=1e6,
        group=TRAINING,
        search=Range(0.1, 4.0, is_log=True),
    )
    dropout: float = 0.4
    epochs: int | None = None
    batch_size: int = 32
    patience: int = 4
