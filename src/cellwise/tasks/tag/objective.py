"""The training objective of a tagger: batches, loss and validation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cellwise.tasks.tag.batches import collate, shuffled
from cellwise.tasks.tag.network import TagBatch, TagNetwork
from cellwise.tasks.tag.vocabulary import Forms, Ragged
from cellwise.tasks.training.objective import Objective

__all__ = ["TagObjective"]


class TagObjective(Objective[TagBatch]):
    """Trains on all sentences in each epoch, in an order that is drawn for it."""

    higher_is_better = True

    def __init__(
        self,
        network: TagNetwork,
        forms: Forms,
        tags: Ragged,
        validate: Callable[[], dict[str, float]],
        *,
        metric: str,
        batch_size: int,
        seed: int,
    ) -> None:
        self._network, self._forms, self._tags, self._validate = network, forms, tags, validate
        self.metric = metric
        self._lengths = forms.sentences.lengths
        self._batch_size, self._seed = batch_size, seed

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return math.ceil(len(self._lengths) / self._batch_size)

    def batches(self, epoch: int) -> Iterator[TagBatch]:
        """The batches of an epoch."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        for chosen in shuffled(self._lengths, self._batch_size, generator):
            yield collate(self._forms, chosen, self._tags)

    def loss(self, batch: TagBatch) -> Tensor:
        """The network's own loss."""
        return self._network.loss(batch)

    def weight(self, batch: TagBatch) -> float:
        """The words."""
        return float(batch.lengths.sum())

    def share(self, batch: TagBatch, rank: int, world: int) -> TagBatch | None:
        """Every `world`-th sentence; the letters of all words stay."""
        if rank >= len(batch.lengths):
            return None
        rows = {name: getattr(batch, name)[:, rank::world] for name in ("words", "shapes", "forms", "tags")}
        return dataclasses.replace(batch, lengths=batch.lengths[rank::world], **rows)

    def validate(self) -> dict[str, float]:
        """The metrics on the sentences that were held out."""
        return self._validate()
