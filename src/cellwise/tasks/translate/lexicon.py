"""What pieces of the source stand for: translations by counting, which the network may write (Arthur et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cellwise.tasks.translate.alignment import WordPairs

__all__ = ["ENTRIES", "Lexicon", "matches"]

ENTRIES = 8  # translations of a piece, at most


class Lexicon(nn.Module):
    """Translations of each of V pieces: ids (V, N), and their probabilities (V, N), which sum to one.

    They are counted, not trained; a run folder keeps them with the weights."""

    ids: Tensor
    chances: Tensor

    def __init__(self, sources: int, targets: int) -> None:
        super().__init__()
        self._targets = targets
        self.register_buffer("ids", torch.zeros(sources, ENTRIES, dtype=torch.int32))
        self.register_buffer("chances", torch.zeros(sources, ENTRIES))

    def learn(self, words: WordPairs, end: int) -> None:
        """From counts. The end of a source gives that of the target; what has no translation is unknown, id 0."""
        ids, chances = words.likeliest(len(self.ids), ENTRIES)
        without = chances.sum(1) == 0
        ids[without], chances[without, 0] = 0, 1.0
        ids[end], chances[end] = end, [1.0] + [0.0] * (ENTRIES - 1)
        self.ids.copy_(torch.from_numpy(ids))
        self.chances.copy_(torch.from_numpy(chances / chances.sum(1, keepdims=True)))

    def entries(self, sources: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and probabilities (B, S, N) of sources (B, S)."""
        # What a run folder says may have been altered; it must not reach beyond the targets.
        return self.ids[sources].long().clamp(0, self._targets - 1), self.chances[sources]


def matches(ids: Tensor, chances: Tensor, targets: Tensor) -> Tensor:
    """How likely each target (B, T) is as a translation of each position: ids, chances (B, S, N) give (B, T, S)."""
    found = chances.new_zeros(*targets.shape, ids.shape[1])
    for entry, chance in zip(ids.unbind(-1), chances.unbind(-1), strict=True):
        found += (targets[:, :, None] == entry[:, None]) * chance[:, None]
    return found
