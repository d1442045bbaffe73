"""The training objectives of a language model: batches, loss and validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from cellwise.tasks.text.ids import IdFile, taken
from cellwise.tasks.text.network import CharacterNetwork, detached
from cellwise.tasks.training.objective import Objective

__all__ = ["Piece", "StreamObjective", "TextObjective", "bits_per_unit"]

Batch = TypeVar("Batch")

STREAMS = 16  # pieces of a text that are measured side by side
LARGEST_EPOCH = 20_000_000  # units: of a longer text, a part is read between two validations
FEWEST_STEPS = 5  # of an epoch: a short text is read in fewer streams
PIECE = 400  # the fewest characters in one of them, so that most are read with a memory of what came before


class _Objective(Objective[Batch]):
    """What both ways to read a text share: its parts, the size of a batch, the validation."""

    metric = "bits_per_character"
    _epoch = 0  # the one that is or was trained; 0 before the first

    def __init__(
        self,
        network: CharacterNetwork,
        training: Tensor | IdFile,
        validation: Tensor,
        *,
        length: int,
        batch_size: int,
        seed: int,
        per_character: float = 1.0,
        sample: Callable[[int], None] | None = None,
    ) -> None:
        """per_character: units of a character, on average. sample: called after each epoch with its number."""
        self._network, self._training, self._validation, self._seed = network, training, validation, seed
        self._per_character, self._sample = per_character, sample
        self._length = min(length, len(training) // 2)
        pieces = len(training) // self._length
        self._batch_size = max(1, min(batch_size, pieces // FEWEST_STEPS))

    @property
    def parts(self) -> int:
        """How many epochs read the text once: one, unless it is long."""
        return max(1, len(self._training) // LARGEST_EPOCH)

    def _begin(self, epoch: int) -> torch.Generator:
        self._epoch = epoch
        return torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)

    def validate(self) -> dict[str, float]:
        """Bits per character on what was held out."""
        if self._sample is not None and self._epoch:
            self._sample(self._epoch)
        return {self.metric: self._per_character * bits_per_unit(self._network, self._validation)}


class TextObjective(_Objective[Tensor]):
    """Pieces of the training text, cut at positions that differ in every epoch; each begins with states of zeros."""

    @property
    def steps(self) -> int:
        """Batches per epoch: about as many characters as the text has, or a part of them."""
        return max(1, len(self._training) // (self._batch_size * self._length * self.parts))

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Pieces (length + 1, B) that together cover the text about once."""
        generator = self._begin(epoch)
        room = len(self._training) - self._length - 1
        # Evenly spread, all shifted by the same random step: every part of the text comes once an epoch.
        count = self.steps * self._batch_size
        shift = torch.rand((), generator=generator)
        starts = ((torch.arange(count) + shift) * (room / count)).long()
        starts = starts[torch.randperm(count, generator=generator)]
        for chosen in starts.split(self._batch_size):
            yield taken(self._training, chosen, self._length + 1)

    def loss(self, batch: Tensor) -> Tensor:
        """Cross-entropy in nats per character, with the penalties of the network."""
        return self._network.loss(batch)[0]

    def weight(self, batch: Tensor) -> float:
        """The characters that are predicted."""
        return float(batch[1:].numel())

    def share(self, batch: Tensor, rank: int, world: int) -> Tensor | None:
        """Every `world`-th piece."""
        return batch[:, rank::world] if rank < batch.shape[1] else None


@dataclass(frozen=True)
class Piece:
    """Characters (length + 1, B), the next of each of B streams; whether they are the first of an epoch."""

    ids: Tensor
    is_first: bool


class StreamObjective(_Objective[Piece]):
    """The training text as B streams side by side, each read from piece to piece with the state carried on.

    Gradients end where a piece begins (truncated backpropagation through time; Mikolov et al. 2010). The text is
    a ring that is cut elsewhere in every epoch."""

    _state: Any = None

    @property
    def steps(self) -> int:
        """Batches per epoch: what the streams hold of whole pieces, or a part of it."""
        return max(1, len(self._training) // self._batch_size // self._length // self.parts)

    def batches(self, epoch: int) -> Iterator[Piece]:
        """The pieces of all streams, in the order of the text."""
        generator = self._begin(epoch)
        size = len(self._training)
        shift = int(torch.randint(size, (), generator=generator))
        starts = shift + torch.arange(self._batch_size) * (size // self._batch_size)
        # Of a text that is read in several epochs, each reads the next part of every stream.
        starts += (epoch - 1) % self.parts * self.steps * self._length
        for number in range(self.steps):
            yield Piece(taken(self._training, starts + number * self._length, self._length + 1), number == 0)

    def loss(self, batch: Piece) -> Tensor:
        """Cross-entropy in nats per character, with the penalties of the network."""
        loss, state = self._network.loss(batch.ids, None if batch.is_first else self._state)
        self._state = detached(state)
        return loss

    def weight(self, batch: Piece) -> float:
        """The characters that are predicted."""
        return float(batch.ids[1:].numel())

    def share(self, batch: Piece, rank: int, world: int) -> Piece | None:
        """Every `world`-th stream, the same ones in all batches."""
        return Piece(batch.ids[:, rank::world], batch.is_first) if rank < batch.ids.shape[1] else None

    def carried(self) -> dict[str, Tensor]:
        """The state of the streams."""
        if self._state is None:
            return {}
        states = (self._state,) if isinstance(self._state, Tensor) else self._state
        return {str(number): each.cpu() for number, each in enumerate(states)}

    def carry(self, carried: Mapping[str, Tensor]) -> None:
        """Go on from a state."""
        if not carried:
            self._state = None
            return
        device = next(self._network.parameters()).device
        states = tuple(carried[str(number)].to(device) for number in range(len(carried)))
        self._state = states[0] if len(states) == 1 else states


def bits_per_unit(network: CharacterNetwork, ids: Tensor) -> float:
    """Mean cross-entropy over a text (T,), in bits, read in a few long pieces side by side, each from zero states."""
    streams = max(1, min(STREAMS, len(ids) // PIECE))
    length = len(ids) // streams
    training = network.training
    network.eval()
    with torch.no_grad():
        device = next(network.parameters()).device
        pieces = ids[: streams * length].view(streams, length).T.to(device).long()
        nats = float(network.cross_entropy(pieces))
    network.train(training)
    return nats / math.log(2)
