"""The options that every estimator has. A task may change their defaults."""

from __future__ import annotations

from typing import Any

from cellwise.tasks.options import Range, option, with_options

__all__ = ["CommonOptions"]

NETWORK, TRAINING = "network", "training"


@with_options
class CommonOptions:
    """The options of the network and of its training."""

    cell: Any = option(
        default="gru",
        help="A cell's name (see `cellwise cells`), or FILE.py:Class for one of your own.",
        metavar="CELL",
        group=NETWORK,
        kw_only=False,
    )
    hidden_size: int = option(
        default=128,
        help="Hidden size of the recurrent layers.",
        at_least=1,
        at_most=65_536,
        group=NETWORK,
        search=Range(16, 256, is_log=True),
    )
    num_layers: int = option(
        default=1,
        help="Number of recurrent layers.",
        at_least=1,
        at_most=64,
        flag="--layers",
        group=NETWORK,
        search=Range(1, 3),
    )
    dropout: float = option(
        default=0.0,
        help="Dropout probability in training.",
        at_least=0.0,
        at_most=0.95,
        group=NETWORK,
        search=Range(0.0, 0.5),
    )
    epochs: int | None = option(
        default=None,
        help="Epochs, at most; early stopping may end sooner.",
        at_least=1,
        at_most=1_000_000,
        none="by the data; with --minutes, unlimited",
        group=TRAINING,
    )
    batch_size: int = option(
        default=64,
        help="Sequences per batch.",
        at_least=1,
        at_most=1_000_000,
        group=TRAINING,
        search=Range(8, 256, is_log=True),
    )
    learning_rate: float = option(
        default=3e-3,
        help="Peak learning rate.",
        at_least=1e-8,
        at_most=10.0,
        group=TRAINING,
        search=Range(3e-4, 3e-2, is_log=True),
    )
    weight_decay: float = option(
        default=1e-3,
        help="Weight decay of AdamW.",
        at_least=0.0,
        at_most=10.0,
        group=TRAINING,
        search=Range(1e-5, 1e-1, is_log=True),
    )
    patience: int | None = option(
        default=6,
        help="Epochs without improvement on validation before training stops; 0 disables early stopping.",
        at_least=0,
        at_most=1_000_000,
        group=TRAINING,
    )
    seed: int = option(
        default=0,
        help="Random seed; equal seeds give equal results.",
        at_least=0,
        at_most=2**31 - 1,
        group=TRAINING,
    )
    threads: int = option(
        default=1,
        help="CPU threads; small networks are fastest with one.",
        at_least=1,
        at_most=1024,
        group=TRAINING,
    )
    device: str = option(
        default="cpu",
        help="Device to train on: auto, cpu, cuda, cuda:1 or mps.",
        what="the name of a device",
        group=TRAINING,
    )
    minutes: float | None = option(
        default=None,
        help="Time limit in minutes, validation included; the learning rate falls to zero at its end.",
        above=0.0,
        none="no limit",
        group=TRAINING,
    )
    accumulate: int = option(
        default=1,
        help="Batches whose gradients are averaged per optimizer step.",
        at_least=1,
        at_most=1_000_000,
        group=TRAINING,
    )
    autocast: bool = option(
        default=False, help="Compute the training loss under torch's bfloat16 autocast.", group=TRAINING
    )
