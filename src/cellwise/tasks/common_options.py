"""The options that every estimator has: the network and its training. A task may give others of its own defaults."""

from __future__ import annotations

from typing import Any

from cellwise.tasks.options import Range, option, with_options

__all__ = ["CommonOptions"]

NETWORK, TRAINING = "network", "training"


@with_options
class CommonOptions:
    """What a network is made of, and how it is trained."""

    cell: Any = option(
        default="gru",
        help="A cell's name (see `cellwise cells`), or FILE.py:Class for one of your own.",
        metavar="CELL",
        group=NETWORK,
        kw_only=False,
    )
    hidden_size: int = option(
        default=128,
        help="Units of the recurrent layer.",
        at_least=1,
        at_most=65_536,
        group=NETWORK,
        search=Range(16, 256, is_log=True),
    )
    num_layers: int = option(
        default=1,
        help="Recurrent layers.",
        at_least=1,
        at_most=64,
        flag="--layers",
        group=NETWORK,
        search=Range(1, 3),
    )
    dropout: float = option(
        default=0.0,
        help="Share of units left out at random in training.",
        at_least=0.0,
        at_most=0.95,
        group=NETWORK,
        search=Range(0.0, 0.5),
    )
    epochs: int = option(
        default=20,
        help="At most so many epochs; early stopping may end sooner. With --minutes the default sets no limit.",
        at_least=1,
        at_most=1_000_000,
        group=TRAINING,
    )
    batch_size: int = option(
        default=64,
        help="Sequences in one step of training.",
        at_least=1,
        at_most=1_000_000,
        group=TRAINING,
        search=Range(8, 256, is_log=True),
    )
    learning_rate: float = option(
        default=3e-3,
        help="Highest learning rate.",
        at_least=1e-8,
        at_most=10.0,
        group=TRAINING,
        search=Range(3e-4, 3e-2, is_log=True),
    )
    weight_decay: float = option(
        default=1e-3,
        help="How strongly weights are pulled to zero.",
        at_least=0.0,
        at_most=10.0,
        group=TRAINING,
        search=Range(1e-5, 1e-1, is_log=True),
    )
    patience: int = option(
        default=6,
        help="Epochs without a better validation before training stops; 0 never stops early.",
        at_least=0,
        at_most=1_000_000,
        group=TRAINING,
    )
    seed: int = option(
        default=0, help="Equal seeds give equal results.", at_least=0, at_most=2**31 - 1, group=TRAINING
    )
    threads: int = option(
        default=1,
        help="Threads of the processor; small networks are fastest with one.",
        at_least=1,
        at_most=1024,
        group=TRAINING,
    )
    device: str = option(
        default="cpu",
        help="Where to train: auto, cpu, cuda, cuda:1 or mps.",
        what="the name of a device",
        group=TRAINING,
    )
    minutes: float | None = option(
        default=None,
        help="Budget in minutes, validation included; the learning rate falls to zero at its end.",
        above=0.0,
        none="no limit",
        group=TRAINING,
    )
    accumulate: int = option(
        default=1,
        help="Batches averaged for one step of the optimizer.",
        at_least=1,
        at_most=1_000_000,
        group=TRAINING,
    )
    autocast: bool = option(
        default=False, help="Compute the training loss in bfloat16 where torch deems it safe.", group=TRAINING
    )
