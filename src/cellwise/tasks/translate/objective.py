"""The training objective of a translator: batches, loss and validation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cellwise.tasks.training.objective import Objective
from cellwise.tasks.translate.alignment import WordPairs
from cellwise.tasks.translate.batches import Row, collate, shuffled
from cellwise.tasks.translate.network import Pairs, TranslateNetwork

__all__ = ["TranslateObjective", "counted"]

RISE = 5  # epochs after which as many words are sampled as were asked for


class TranslateObjective(Objective[Pairs]):
    """Trains on all pairs in each epoch, in an order that is drawn for it."""

    def __init__(
        self,
        network: TranslateNetwork,
        rows: Sequence[Row],
        validate: Callable[[], dict[str, float]],
        *,
        words: WordPairs | None,
        guided: bool,
        sampling: float,
        metric: str,
        batch_size: int,
        seed: int,
    ) -> None:
        self._network, self._rows, self._validate = network, rows, validate
        self.metric, self.higher_is_better = metric, metric in ("chrf", "bleu")
        self._batch_size, self._seed = batch_size, seed
        self._words, self._told = words, {"guided": guided, "lexical": network.lexicon is not None}
        self._sampling, self._share_sampled = sampling, 0.0

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return math.ceil(len(self._rows) / self._batch_size)

    def batches(self, epoch: int) -> Iterator[Pairs]:
        """The batches of an epoch."""
        self._share_sampled = self._sampling * min(1.0, (epoch - 1) / RISE)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        for chosen in shuffled(self._rows, self._batch_size, generator):
            yield collate([self._rows[number] for number in chosen], self._words, **self._told)

    def loss(self, batch: Pairs) -> Tensor:
        """The network's own loss."""
        return self._network.loss(batch, self._share_sampled)

    def weight(self, batch: Pairs) -> float:
        """Words of the targets."""
        return float(batch.target_lengths.sum())

    def share(self, batch: Pairs, rank: int, world: int) -> Pairs | None:
        """Every `world`-th pair."""
        if rank >= len(batch.target_lengths):
            return None
        parts: dict[str, Any] = {
            field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)
        }
        shares: dict[str, Any] = {
            name: None if part is None else part[..., rank::world] for name, part in parts.items()
        }
        return Pairs(**shares)

    def validate(self) -> dict[str, float]:
        """The metrics on the pairs that were held out."""
        return self._validate()


def counted(rows: Sequence[Row], size: int) -> WordPairs:
    """Which pieces belong to which, of the rows of a training. size: of the targets' vocabulary; the ids from there on
    mean something else in each row."""
    sources = [row.source[:-1].tolist() for row in rows]
    return WordPairs.learn(sources, [row.target[:-1].tolist() for row in rows]).below(size)
