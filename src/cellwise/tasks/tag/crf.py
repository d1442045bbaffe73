"""A linear-chain conditional random field (Lafferty, McCallum and Pereira 2001) over the tags of a sentence.

Shapes: T words, B sentences, K tags. Rows are padded at the end; `lengths` (B,) are at least 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Crf"]

FORBIDDEN = -1e4  # as good as minus infinity, without its NaN
SMALLEST = 1e-37  # of a sum of exponentials: where no path leads, float32 would give zero


class Crf(nn.Module):
    """Scores of neighbouring tags. `moves` (K, K) from, to; `begins`, `ends` (K,): what is allowed, None for all."""

    allowed: Tensor
    allowed_begins: Tensor
    allowed_ends: Tensor

    def __init__(
        self,
        tags: int,
        moves: Sequence[Sequence[bool]] | None = None,
        begins: Sequence[bool] | None = None,
        ends: Sequence[bool] | None = None,
    ) -> None:
        super().__init__()
        self.moves = nn.Parameter(torch.zeros(tags, tags))
        self.begins, self.ends = nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))
        masks = {"allowed": moves, "allowed_begins": begins, "allowed_ends": ends}
        for name, mask in masks.items():
            shape = (tags, tags) if name == "allowed" else (tags,)
            allowed = torch.ones(shape, dtype=torch.bool) if mask is None else torch.tensor(mask)
            self.register_buffer(name, allowed, persistent=False)

    def _scores(self) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.moves.masked_fill(~self.allowed, FORBIDDEN),
            self.begins.masked_fill(~self.allowed_begins, FORBIDDEN),
            self.ends.masked_fill(~self.allowed_ends, FORBIDDEN),
        )

    def loss(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Negative log-likelihood of each sentence (B,); emissions (T, B, K), tags (T, B)."""
        return self.log_partition(emissions, lengths) - self.score(emissions, tags, lengths)

    def score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Score of the given path of each sentence, (B,)."""
        moves, begins, ends = self._scores()
        steps = torch.arange(len(tags), device=tags.device)[:, None]
        known = steps < lengths
        tags = tags.masked_fill(~known, 0)
        own = emissions.gather(2, tags[..., None])[..., 0].where(known, 0.0).sum(0)
        between = moves[tags[:-1], tags[1:]].where(known[1:], 0.0).sum(0)
        last = tags.gather(0, lengths[None] - 1)[0]
        return begins[tags[0]] + own + between + ends[last]

    def log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Logarithm of the sum over all paths of each sentence, (B,): the forward recursion.

        A step is a product of matrices: the largest score is taken out, so exponentials stay within float32."""
        moves, begins, ends = self._scores()
        highest = moves.max()
        steps = (moves - highest).exp()
        alpha = begins + emissions[0]
        for t in range(1, len(emissions)):
            top = alpha.amax(1, keepdim=True)
            total = ((alpha - top).exp() @ steps).clamp(min=SMALLEST).log() + top + highest
            alpha = torch.where((t < lengths)[:, None], total + emissions[t], alpha)
        return (alpha + ends).logsumexp(1)

    def decode(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """The best path of each sentence (T, B), beyond the lengths 0 (Viterbi 1967)."""
        with torch.no_grad():
            moves, begins, ends = self._scores()
            alpha = begins + emissions[0]
            pointers = []
            stay = torch.arange(emissions.shape[2], device=emissions.device).expand_as(alpha)
            for t in range(1, len(emissions)):
                best, origin = (alpha[:, :, None] + moves).max(1)
                goes_on = (t < lengths)[:, None]
                alpha = torch.where(goes_on, best + emissions[t], alpha)
                pointers.append(torch.where(goes_on, origin, stay))
            tag = (alpha + ends).argmax(1)
            path = [tag]
            for origin in reversed(pointers):
                tag = origin.gather(1, tag[:, None])[:, 0]
                path.append(tag)
            made = torch.stack(path[::-1])
            steps = torch.arange(len(made), device=made.device)[:, None]
            return made.masked_fill(steps >= lengths, 0)
