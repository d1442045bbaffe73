"""A linear-chain conditional random field (Lafferty, McCallum and Pereira 2001) over the tags of a sentence.

Shapes: T words, B sentences, K tags. Rows are padded at the end; `lengths` (B,) are at least 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["Chain", "Crf"]

FORBIDDEN = -1e4  # as good as minus infinity, without its NaN
SMALLEST = 1e-37  # of a sum of exponentials: where no path leads, float32 would give zero
MOST = 70.0  # of a logarithm, far from the end of float32
CACHED = 1 << 18  # numbers that stay near a core


@dataclass(frozen=True, eq=False)
class Chain:
    """Scores of neighbouring tags: moves (K, K) from, to; begins, ends (K,). What they say of a sentence's tags."""

    moves: Tensor
    begins: Tensor
    ends: Tensor

    def weighted(self, own: Tensor, other: Chain, others: Tensor) -> Chain:
        """Both together, with a weight of each."""
        pairs = zip(
            (self.moves, self.begins, self.ends), (other.moves, other.begins, other.ends), strict=True
        )
        return Chain(*(own * a + others * b for a, b in pairs))

    def favouring(self, begins: Tensor, bonus: float) -> Chain:
        """The same, with so much more for each tag of a mask (K,) bool."""
        more = bonus * begins.to(self.moves.dtype)
        return Chain(self.moves + more, self.begins + more, self.ends)

    def loss(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Negative log-likelihood of each sentence (B,); emissions (T, B, K), tags (T, B)."""
        return self.log_partition(emissions, lengths) - self.score(emissions, tags, lengths)

    def score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Score of the given path of each sentence, (B,)."""
        known = _inside(tags, lengths)
        tags = tags.masked_fill(~known, 0)
        own = emissions.gather(2, tags[..., None])[..., 0].where(known, 0.0).sum(0)
        between = self.moves[tags[:-1], tags[1:]].where(known[1:], 0.0).sum(0)
        last = tags.gather(0, lengths[None] - 1)[0]
        return self.begins[tags[0]] + own + between + self.ends[last]

    def log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Logarithm of the sum over all paths of each sentence, (B,)."""
        emissions = emissions.to(self.moves.dtype)
        made: Tensor = _LogPartition.apply(emissions, self.moves, self.begins, self.ends, lengths)
        return made

    def marginals(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Probability of each tag at each word (T, B, K), over all paths; zeros beyond the lengths."""
        with torch.no_grad():
            alphas = _forward(emissions, self.moves, self.begins, lengths)
            logs = (alphas[-1] + self.ends).logsumexp(1)
            betas = _backward(emissions, self.moves, self.ends, lengths)
            return _occupied(alphas, betas, logs, lengths)

    def decode(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """The best path of each sentence (T, B), beyond the lengths 0 (Viterbi 1967).

        Where a path comes from is looked up only along the best one: B * K comparisons a step in place of B * K * K."""
        with torch.no_grad():
            origins = self.moves.T.contiguous()
            alphas = [self.begins + emissions[0]]
            for t in range(1, len(emissions)):
                best = _best_before(alphas[-1], origins) + emissions[t]
                alphas.append(torch.where((t < lengths)[:, None], best, alphas[-1]))
            tag = (alphas[-1] + self.ends).argmax(1)
            path = [tag]
            for t in range(len(emissions) - 1, 0, -1):
                origin = (alphas[t - 1] + origins[tag]).argmax(1)
                tag = torch.where(t < lengths, origin, tag)
                path.append(tag)
            made = torch.stack(path[::-1])
            return made.masked_fill(~_inside(made, lengths), 0)


class Crf(nn.Module):
    """The scores as parameters. moves (K, K), begins, ends (K,): what is allowed, None for all."""

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
            # Not on the device "meta", where a network is built whose weights are loaded: these are not among them.
            allowed = (
                torch.tensor(mask, device="cpu") if mask is not None else torch.ones(shape, device="cpu") > 0
            )
            self.register_buffer(name, allowed, persistent=False)

    def chain(self) -> Chain:
        """The scores as they are, those of what is not allowed as good as minus infinity."""
        return Chain(
            self.moves.masked_fill(~self.allowed, FORBIDDEN),
            self.begins.masked_fill(~self.allowed_begins, FORBIDDEN),
            self.ends.masked_fill(~self.allowed_ends, FORBIDDEN),
        )


def _inside(values: Tensor, lengths: Tensor) -> Tensor:
    """Whether a step of (T, B, ...) lies within its sentence, (T, B)."""
    return torch.arange(len(values), device=values.device)[:, None] < lengths


def _best_before(alpha: Tensor, origins: Tensor) -> Tensor:
    """Best score of a path into each tag (B, K); origins (K, K) to, from. Few rows at once stay in the cache."""
    rows = max(1, CACHED // origins.numel())
    return torch.cat([(part[:, None] + origins).amax(2) for part in alpha.split(rows)])


def _forward(emissions: Tensor, moves: Tensor, begins: Tensor, lengths: Tensor) -> Tensor:
    """Logarithm of the sum over all paths to each tag, (T, B, K); behind a sentence's end that of its last word.

    A step is a product of matrices: the largest score is taken out, so exponentials stay within float32."""
    highest = moves.max()
    steps = (moves - highest).exp()
    alphas = [begins + emissions[0]]
    for t in range(1, len(emissions)):
        alpha = alphas[-1]
        top = alpha.amax(1, keepdim=True)
        total = ((alpha - top).exp_() @ steps).clamp_(min=SMALLEST).log_().add_(top + highest)
        alphas.append(torch.where((t < lengths)[:, None], total.add_(emissions[t]), alpha))
    return torch.stack(alphas)


def _backward(emissions: Tensor, moves: Tensor, ends: Tensor, lengths: Tensor) -> Tensor:
    """Logarithm of the sum over all paths from each tag to the end, without its own emission, (T, B, K)."""
    highest = moves.max()
    steps = (moves - highest).exp().T.contiguous()
    last = ends.expand_as(emissions[0])
    betas = [last]
    for t in range(len(emissions) - 1, 0, -1):
        onward = betas[-1] + emissions[t]
        top = onward.amax(1, keepdim=True)
        total = ((onward - top).exp_() @ steps).clamp_(min=SMALLEST).log_().add_(top + highest)
        betas.append(torch.where((t < lengths)[:, None], total, last))
    return torch.stack(betas[::-1])


def _occupied(alphas: Tensor, betas: Tensor, logs: Tensor, lengths: Tensor) -> Tensor:
    """Probability of each tag at each word, (T, B, K)."""
    return (alphas + betas - logs[:, None]).exp_() * _inside(alphas, lengths)[..., None]


class _LogPartition(torch.autograd.Function):
    """The forward recursion; its gradient are probabilities, from one backward recursion and one product."""

    @staticmethod
    def forward(
        ctx: Any, emissions: Tensor, moves: Tensor, begins: Tensor, ends: Tensor, lengths: Tensor
    ) -> Tensor:
        alphas = _forward(emissions, moves, begins, lengths)
        logs = (alphas[-1] + ends).logsumexp(1)
        ctx.save_for_backward(emissions, moves, ends, lengths, alphas, logs)
        return logs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        emissions, moves, ends, lengths, alphas, logs = ctx.saved_tensors
        betas = _backward(emissions, moves, ends, lengths)
        occupied = _occupied(alphas, betas, logs, lengths) * gradient[:, None]
        final = occupied.gather(0, (lengths - 1)[None, :, None].expand(1, -1, occupied.shape[2]))[0].sum(0)
        # A path that moves from a to b at step t: alpha of a, the move, emission and beta of b. All steps are one
        # product, with the largest alpha of each taken out of the first factor and put into the second.
        highest = moves.max()
        top = alphas[:-1].amax(2, keepdim=True)
        before = (alphas[:-1] - top).exp_()
        after = (betas[1:] + emissions[1:]).add_(top + (highest - logs)[:, None]).clamp_(max=MOST).exp_()
        after *= (_inside(emissions, lengths)[1:] * gradient)[..., None]
        pairs = (before.flatten(0, 1).T @ after.flatten(0, 1)) * (moves - highest).exp()
        return occupied, pairs, occupied[0].sum(0), final, None
