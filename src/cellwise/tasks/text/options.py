"""The options of a language model, each declared once."""

from __future__ import annotations

from cellwise.tasks.common_options import NETWORK, TRAINING, CommonOptions
from cellwise.tasks.options import Range, option, with_options

__all__ = ["UNITS", "TextOptions"]

UNITS = ("characters", "bytes", "subwords")
BRANCHES = ("ngrams", "none")
REGULARISATION = "Regularisation"
BY_SIZE = "by the size of the text"


@with_options
class TextOptions(CommonOptions):
    """The options of a language model: network, training, regularisation."""

    unit: str = option(
        default="characters",
        help="What the network reads and predicts; bytes are those of UTF-8, for any script; subwords are learned "
        "from the text.",
        choices=UNITS,
        group=NETWORK,
    )
    subwords: int = option(
        default=2000,
        help="Size of the vocabulary, with --unit subwords.",
        at_least=257,
        at_most=100_000,
        group=NETWORK,
    )
    branch: str = option(
        default="ngrams",
        help="Beside the network, n-grams that are counted in the same text (Kneser-Ney): the probabilities of both "
        "are mixed, with the share that predicts the validation text best. Texts are written by the network alone.",
        choices=BRANCHES,
        group=NETWORK,
    )
    embedding_size: int = option(
        default=128,
        help="Size of a character's embedding.",
        at_least=1,
        at_most=65_536,
        group=NETWORK,
        search=Range(8, 128, is_log=True),
    )
    hidden_size: int = option(
        default=384,
        help="Hidden size of the recurrent layers.",
        at_least=1,
        at_most=65_536,
        group=NETWORK,
        search=Range(16, 512, is_log=True),
    )
    tied: bool = option(
        default=False,
        help="Use the embedding as the output weights too, behind a projection where sizes differ.",
        group=NETWORK,
    )
    length: int = option(
        default=100,
        help="Characters per training sequence, over which gradients are backpropagated.",
        at_least=2,
        at_most=1_000_000,
        group=TRAINING,
        search=Range(32, 256, is_log=True),
    )
    carry: bool = option(
        default=True,
        help="Begin a training sequence with the state at the end of the one before it in the text, not with zeros.",
        group=TRAINING,
    )
    dropout: float | None = option(  # type: ignore[assignment]
        default=None,
        help="Dropout probability of the layers' outputs.",
        at_least=0.0,
        at_most=0.95,
        none=BY_SIZE,
        group=REGULARISATION,
    )
    input_dropout: float = option(
        default=0.0,
        help="Dropout probability of the embedded characters' components.",
        at_least=0.0,
        at_most=0.95,
        group=REGULARISATION,
    )
    embedding_dropout: float = option(
        default=0.0,
        help="Probability that a character is left out of a batch, wherever it stands.",
        at_least=0.0,
        at_most=0.95,
        group=REGULARISATION,
    )
    weight_dropout: float = option(
        default=0.0,
        help="Dropout probability of the weights between hidden states.",
        at_least=0.0,
        at_most=0.95,
        group=REGULARISATION,
    )
    locked: bool = option(
        default=True,
        help="Drop the same components at all steps of a sequence, at the input and at the output.",
        group=REGULARISATION,
    )
    activation_penalty: float = option(
        default=0.0,
        help="Weight of the squared outputs in the loss; 2 is usual for models of words.",
        at_least=0.0,
        at_most=1000.0,
        group=REGULARISATION,
    )
    slowness_penalty: float = option(
        default=0.0,
        help="Weight of the squared change of the output from step to step; 1 is usual for models of words.",
        at_least=0.0,
        at_most=1000.0,
        group=REGULARISATION,
    )
    batch_size: int = 32  # streams of the text; fewer of a short one
    patience: int = 5
