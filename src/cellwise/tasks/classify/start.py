"""A warm start: a network of texts that begins with the embedding and the recurrent layers of a language model, which
has read much text without labels (ULMFiT: Howard and Ruder 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cellwise.cells import Cell
from cellwise.tasks.classify.encoders import TextEncoder
from cellwise.tasks.classify.network import SequenceNetwork, Sizes
from cellwise.tasks.classify.tokens import SUBWORDS
from cellwise.tasks.data.subwords import Subwords
from cellwise.tasks.errors import OptionError, RunFolderError
from cellwise.tasks.training.digests import tensors_digest
from cellwise.tasks.training.loading import cells_of_run
from cellwise.tasks.training.replacing import current_run
from cellwise.tasks.training.run_folder import BEST, CONFIG, RunFolder

__all__ = ["WarmStart", "read_start"]

TASKS = ("text", "characters")  # what runs of language models are called, and were in version 0.1
BYTES = "bytes"
EMBED, LAYER = "embed.weight", "layer."  # names of their weights
BACKWARDS = "_reverse"  # ends the names of those that read from the end


@dataclass(frozen=True, eq=False)
class WarmStart:
    """What a language model brings along: how it reads texts; its cell; embedding (V, E); the weights of its recurrent
    layers by name, as a layer of one direction has them."""

    run: RunFolder
    unit: str
    tokens: tuple[str, ...]
    subwords: Subwords | None
    cell: Cell
    sizes: Sizes
    embedding: Tensor
    layer: Mapping[str, Tensor]
    digest: str

    def encoder(self, longest: int) -> TextEncoder:
        """How it reads a text."""
        return TextEncoder(self.unit, self.tokens, longest, self.subwords)

    def check(self, cell: Cell, unit: str | None, given: Mapping[str, int], directions: int) -> None:
        """Raise OptionError, with what to do, unless a network may begin with it. given: sizes that the user has
        set."""
        whose = f"the language model in {self.run.path}"
        if cell != self.cell:
            raise OptionError(
                f"{whose} has the cell {self.cell.name}, and this network {cell.name}; give cell={self.cell.name!r} "
                f"(--cell {self.cell.name}), or train a language model with {cell.name}"
            )
        if unit is not None and unit != self.unit:
            raise OptionError(f"unit is {unit!r}, but {whose} reads {self.unit}; leave out unit (--unit)")
        for name, value in given.items():
            own = getattr(self.sizes, name)
            if value != own:
                raise OptionError(f"{name} is {value}, but {whose} has {own}; give that, or leave it out")
        if directions == 2 and self.sizes.num_layers > 1:
            raise OptionError(
                f"{whose} has {self.sizes.num_layers} layers that read forwards, and in a network of two directions "
                "the upper ones read both; give directions=1 (--directions 1)"
            )

    def begin(self, network: SequenceNetwork) -> None:
        """Give a network these weights. Layers that read backwards begin with them too."""
        self.run.guarded(f"{BEST} holds other layers than {CONFIG} says", lambda: self._copy(network))

    def _copy(self, network: SequenceNetwork) -> None:
        assert network.embed is not None
        with torch.no_grad():
            network.embed.weight.copy_(self.embedding)
            for name, parameter in network.layer.named_parameters():
                own = self.layer[name.removesuffix(BACKWARDS)]
                if own.shape != parameter.shape:
                    raise ValueError(f"{name} has the shape {tuple(own.shape)}")
                parameter.copy_(own)


def read_start(path: str | Path) -> WarmStart:
    """What the run of a language model brings along; every file is compared with its checksum.

    Raises RunFolderError for what is no finished run of `cellwise text`, OptionError for one that reads bytes."""
    run = current_run(Path(path))
    config = run.config()
    if config["task"] not in TASKS:
        raise RunFolderError(
            f"{run.path} holds a run of the task {config['task']!r:.60}; a warm start takes one of `cellwise text`"
        )
    if not run.is_finished:
        raise run.unfinished()
    run.summary()
    return run.guarded("it does not hold what a language model has learned", lambda: _start(run, config))


def _start(run: RunFolder, config: Mapping[str, Any]) -> WarmStart:
    settings = config["settings"]
    unit = settings.get("unit", "characters")
    if unit == BYTES:
        raise OptionError(
            f"the language model in {run.path} reads bytes; train one with --unit subwords or --unit characters"
        )
    subwords = Subwords.from_json(config["subwords"]) if unit == SUBWORDS else None
    tokens = () if subwords is not None else tuple(config["characters"])
    (cell,) = cells_of_run(run, config, settings["cell"])
    weights = run.read_tensors(BEST).tensors
    embedding = weights[EMBED]
    layer = {name.removeprefix(LAYER): each for name, each in weights.items() if name.startswith(LAYER)}
    sizes = Sizes(embedding.shape[1], settings["hidden_size"], settings["num_layers"])
    known = len(tokens) if subwords is None else len(subwords)
    if len(set(tokens)) != len(tokens) or embedding.shape[0] != known or not layer:
        raise ValueError("its embedding is not that of its tokens")
    return WarmStart(
        run, unit, tokens, subwords, cell, sizes, embedding, layer, tensors_digest(weights, unit)
    )
