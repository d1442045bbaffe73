"""The options of a translator, each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cellwise.tasks.common_options import NETWORK, TRAINING, CommonOptions
from cellwise.tasks.options import Range, option, with_options

__all__ = [
    "ATTENTIONS",
    "BEAM",
    "GENERAL",
    "MONOTONE",
    "SOUNDS",
    "UNIT_NAMES",
    "VERSES",
    "WATCHED",
    "Searching",
    "TranslateOptions",
]

DATA = "data"
MONOTONE = "monotone"
# What suits the bundled verses, which are few and short, and spellings with their sounds.
VERSES: Mapping[str, Any] = {
    "source_unit": "words",
    "target_unit": "words",
    "copy": True,
    "hidden_size": 128,
    "batch_size": 32,
    "learning_rate": 5e-3,
    "epochs": 12,
}
SOUNDS: Mapping[str, Any] = {
    "attention": MONOTONE,
    "embedding_size": 160,
    "hidden_size": 208,
    "word_dropout": 0.0,
    "learning_rate": 3e-3,
    "epochs": 9,
}
GENERAL = "general"
ATTENTIONS = ("dot", GENERAL, "additive", MONOTONE)
UNIT_NAMES = ("words", "symbols", "characters", "subwords")
WATCHED = ("chrf", "bleu", "word_error_rate", "symbol_error_rate", "cross_entropy")
BEAM = 5
BY_TEXTS = "by the texts"


@with_options
class TranslateOptions(CommonOptions):
    """The options of a translator: data, network and training."""

    source_unit: str | None = option(
        default=None,
        help="What sources are cut into; symbols are words as they stand, without a look at punctuation.",
        choices=UNIT_NAMES,
        none=BY_TEXTS,
        group=DATA,
    )
    target_unit: str | None = option(
        default=None,
        help="What targets are cut into.",
        choices=UNIT_NAMES,
        none=BY_TEXTS,
        group=DATA,
    )
    vocabulary_size: int | None = option(
        default=None,
        help="Pieces of a vocabulary, at most.",
        at_least=4,
        at_most=1_000_000,
        none=BY_TEXTS,
        group=DATA,
    )
    joint: bool | None = option(
        default=None,
        help="One vocabulary, and one embedding, for both sides.",
        none="where both are cut into subwords",
        group=DATA,
    )
    longest: int = option(
        default=250,
        help="Pieces of a source or target; longer pairs are not learned from.",
        at_least=1,
        at_most=100_000,
        group=DATA,
    )
    attention: str | None = option(
        default=None,
        help="How well a position of the source fits a state of the decoder. monotone: each position in its turn "
        "writes nothing, a piece or several, as letters write sounds.",
        choices=ATTENTIONS,
        none="monotone where letters or symbols are found to write in turn, else general",
        group=NETWORK,
    )
    hidden_size: int = option(
        default=256,
        help="Hidden size of the decoder's layers; the encoder has half of it in each direction.",
        at_least=1,
        at_most=65_536,
        group=NETWORK,
        search=Range(64, 512, is_log=True),
    )
    embedding_size: int = option(
        default=128,
        help="Size of the embeddings, and of what the output layer reads.",
        at_least=1,
        at_most=65_536,
        group=NETWORK,
        search=Range(64, 512, is_log=True),
    )
    upper_layers: int = option(
        default=0,
        help="Recurrent layers of the decoder above the attention, which read what it found; 0 for none.",
        at_least=0,
        at_most=64,
        group=NETWORK,
        search=Range(0, 2),
    )
    copy: bool = option(
        default=False,
        help="Let the network copy pieces of the source, names and numbers for example (See et al. 2017).",
        group=NETWORK,
    )
    lexicon: bool = option(
        default=False,
        help="Let the network write translations of the piece that it attends to as IBM model 1 counts them "
        "(Arthur et al. 2016): for words, where there are few pairs.",
        group=NETWORK,
    )
    coverage: float = option(
        default=0.0,
        help="Let the attention know where it has been (Tu et al. 2016), with this weight in the loss of going there "
        "again (See et al. 2017); 0 for neither.",
        at_least=0.0,
        at_most=100.0,
        group=NETWORK,
        search=Range(0.0, 1.0),
    )
    input_feeding: bool = option(
        default=False,
        help="Let each step of the decoder read what the output layer read before it (Luong et al. 2015). Training "
        "goes step by step then, and takes longer.",
        group=NETWORK,
    )
    tied: bool = option(
        default=True, help="Use the targets' embedding as the output weights too.", group=NETWORK
    )
    memory: bool = option(
        default=True,
        help="Keep the pairs of the training, and look up what was written in the same state of the network "
        "(Khandelwal et al. 2021), where validation shows that it helps with sentences.",
        group=NETWORK,
    )
    word_dropout: float = option(
        default=0.1,
        help="Probability that a piece, of the source or before the next one of the target, is read as unknown.",
        at_least=0.0,
        at_most=0.95,
        group=TRAINING,
        search=Range(0.0, 0.4),
    )
    sampling: float = option(
        default=0.0,
        help="Scheduled sampling (Bengio et al. 2015): how likely the decoder reads its own piece in place of the true "
        "one; reached after five epochs. Costs a forward pass.",
        at_least=0.0,
        at_most=1.0,
        group=TRAINING,
        search=Range(0.0, 0.5),
    )
    guide: float = option(
        default=0.3,
        help="Weight in the loss of the attention's agreement with alignments by IBM model 1; 0 for none.",
        at_least=0.0,
        at_most=100.0,
        group=TRAINING,
        search=Range(0.0, 1.0),
    )
    smoothing: float = option(
        default=0.1,
        help="Label smoothing: the share of each target that is spread over the whole vocabulary.",
        at_least=0.0,
        at_most=0.95,
        group=TRAINING,
        search=Range(0.0, 0.3),
    )
    watch: str | None = option(
        default=None,
        help="The metric on validation that decides which epoch is the best.",
        choices=WATCHED,
        none="chrf for sentences, symbol_error_rate for symbols and characters",
        group=TRAINING,
    )
    dropout: float = 0.2
    learning_rate: float = 4e-3


@with_options
class Searching:
    """How translations are searched for."""

    beam: int = option(
        default=BEAM,
        help="Translations that are followed side by side; 1 takes the most likely word each time.",
        at_least=1,
        at_most=1000,
    )
    length_penalty: float | None = option(
        default=None,
        help="A log-probability is divided by the length to the power of this; larger favours longer ones.",
        at_least=0.0,
        at_most=10.0,
        none="what was best in validation",
    )
    memory: bool = option(
        default=True, help="Look into the memory of the training's pairs, if the run has one."
    )
    allow: str | None = option(
        default=None,
        help="Texts, one a line, that translations are put together from: words or symbols. Lines with a source, a tab "
        "and a text hold for that source alone.",
        none="any",
        metavar="FILE",
    )
    among: str | None = option(
        default=None,
        help="The same, where a translation is one of the texts as a whole.",
        none="any",
        metavar="FILE",
    )
