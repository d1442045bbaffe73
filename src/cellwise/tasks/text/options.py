"""The options of a text model, each declared once."""

from __future__ import annotations

from cellwise.tasks.common_options import NETWORK, TRAINING, CommonOptions
from cellwise.tasks.options import Range, option, with_options

__all__ = ["TextOptions"]


@with_options
class TextOptions(CommonOptions):
    """The options of a text model: network and training."""

    embedding_size: int = option(
        default=32,
        help="Size of a character's embedding.",
        at_least=1,
        at_most=65_536,
        group=NETWORK,
        search=Range(8, 128, is_log=True),
    )
    length: int = option(
        default=128,
        help="Characters per training sequence, over which gradients are backpropagated.",
        at_least=2,
        at_most=1_000_000,
        group=TRAINING,
        search=Range(32, 256, is_log=True),
    )
    hidden_size: int = 160
    epochs: int = 12
    batch_size: int = 16
    patience: int = 3
