"""The training objective of a text model: batches, loss and validation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from cellwise.tasks.text.network import CharacterNetwork
from cellwise.tasks.training.objective import Objective

__all__ = ["TextObjective", "bits_per_character"]

STREAMS = 16  # pieces of a text that are measured side by side
PIECE = 400  # the fewest characters in one of them, so that most are read with a memory of what came before


class TextObjective(Objective[Tensor]):
    """Pieces of the training text, cut at positions that differ in every epoch."""

    metric = "bits_per_character"

    def __init__(
        self,
        network: CharacterNetwork,
        training: Tensor,
        validation: Tensor,
        *,
        length: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self._network, self._training, self._validation, self._seed = network, training, validation, seed
        self._length = min(length, len(training) // 2)
        self._batch_size = max(1, min(batch_size, len(training) // self._length))

    @property
    def steps(self) -> int:
        """Batches per epoch: about as many characters as the text has."""
        return max(1, len(self._training) // (self._batch_size * self._length))

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Pieces (length + 1, B) that together cover the text about once."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        room = len(self._training) - self._length - 1
        # Evenly spread, all shifted by the same random step: every part of the text comes once an epoch.
        count = self.steps * self._batch_size
        shift = torch.rand((), generator=generator)
        starts = ((torch.arange(count) + shift) * (room / count)).long()
        starts = starts[torch.randperm(count, generator=generator)]
        for chosen in starts.split(self._batch_size):
            yield self._training[chosen + torch.arange(self._length + 1)[:, None]]

    def loss(self, batch: Tensor) -> Tensor:
        """Cross-entropy in nats per character."""
        return self._network.cross_entropy(batch)

    def weight(self, batch: Tensor) -> float:
        """The characters that are predicted."""
        return float(batch[1:].numel())

    def share(self, batch: Tensor, rank: int, world: int) -> Tensor | None:
        """Every `world`-th piece."""
        return batch[:, rank::world] if rank < batch.shape[1] else None

    def validate(self) -> dict[str, float]:
        """Bits per character on what was held out."""
        return {self.metric: bits_per_character(self._network, self._validation)}


def bits_per_character(network: CharacterNetwork, ids: Tensor) -> float:
    """Mean cross-entropy over a text (T,), in bits, read in a few long pieces side by side, each from zero states."""
    streams = max(1, min(STREAMS, len(ids) // PIECE))
    length = len(ids) // streams
    training = network.training
    network.eval()
    with torch.no_grad():
        device = next(network.parameters()).device
        pieces = ids[: streams * length].view(streams, length).T.to(device)
        nats = float(network.cross_entropy(pieces))
    network.train(training)
    return nats / math.log(2)
