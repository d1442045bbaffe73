"""How well each state of the decoder fits each position of the source (Luong et al. 2015; Bahdanau et al. 2015)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SCORES", "Attention", "InTurn", "repetition"]

SCORES = ("dot", "general", "additive")


class Attention(nn.Module):
    """Weights of the source positions for each step of the decoder.

    score: "dot" q.m / sqrt(H), "general" q.(W m), "additive" v.tanh(W m + U q); q a decoder state, m an encoder output,
    both of size H. covers: a position that earlier steps attended to with weights that sum to c scores
    c (a.q + b.k + d) more, k what q is compared with: coverage (Tu et al. 2016), which starts without effect."""

    def __init__(self, score: str, size: int, covers: bool = False) -> None:
        super().__init__()
        self.score = score
        self.key = None if score == "dot" else nn.Linear(size, size, bias=False)
        self.query = nn.Linear(size, size) if score == "additive" else None
        self.energy = nn.Parameter(torch.empty(size)) if score == "additive" else None
        if self.energy is not None:
            nn.init.uniform_(self.energy, -1 / math.sqrt(size), 1 / math.sqrt(size))
        self.cover = nn.Linear(2 * size, 1) if covers else None
        if self.cover is not None:
            nn.init.zeros_(self.cover.weight)
            nn.init.zeros_(self.cover.bias)

    def keys(self, memory: Tensor) -> Tensor:
        """What queries are compared with, (B, S, H), once for each source; memory (B, S, H)."""
        return memory if self.key is None else self.key(memory)

    def forward(self, queries: Tensor, keys: Tensor, lengths: Tensor, covered: Tensor | None) -> Tensor:
        """Weights (B, T, S) of queries (B, T, H) over keys (B, S, H); zero beyond the lengths (B,) of the sources.

        covered (B, T, S): the sum of the weights before each query; it is looked at only where the attention covers."""
        scores = self._scores(queries, keys, lengths)
        if self.cover is not None and covered is not None:
            scores = scores + covered * self._strength(queries, keys)
        return scores.softmax(-1)

    def over_targets(self, queries: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """The same, where the T queries of a row follow each other, and the first has none before it."""
        if self.cover is None:
            return self(queries, keys, lengths, None)
        scores, strength = self._scores(queries, keys, lengths), self._strength(queries, keys)
        covered, weights = torch.zeros_like(scores[:, 0]), []
        for score, factor in zip(scores.unbind(1), strength.unbind(1), strict=True):
            weights.append((score + covered * factor).softmax(-1))
            covered = covered + weights[-1]
        return torch.stack(weights, 1)

    def _scores(self, queries: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        if self.query is not None and self.energy is not None:
            scores = torch.tanh(self.query(queries)[:, :, None] + keys[:, None]) @ self.energy
        else:
            scores = torch.bmm(queries, keys.transpose(1, 2))
            if self.key is None:
                scores = scores / math.sqrt(queries.shape[-1])
        places = torch.arange(keys.shape[1], device=keys.device)
        beyond = places >= lengths[:, None]
        return scores.masked_fill(beyond[:, None], -math.inf)

    def _strength(self, queries: Tensor, keys: Tensor) -> Tensor:
        """What a weight of one, given to a position before, adds to its score: (B, T, S)."""
        assert self.cover is not None
        of_query, of_key = self.cover.weight[0].chunk(2)
        return (queries @ of_query)[:, :, None] + (keys @ of_key)[:, None] + self.cover.bias


class InTurn(nn.Module):
    """Step t of the decoder attends to position t of the source: hard monotonic attention, to targets that are cut into
    what each position writes (Aharoni and Goldberg 2017). It has the methods of `Attention`, and nothing to learn."""

    def keys(self, memory: Tensor) -> Tensor:
        """Nothing is compared; (B, S, 0)."""
        return memory[..., :0]

    def place(self, lengths: Tensor, covered: Tensor) -> Tensor:
        """The position (B, K) of the step after those whose weights sum to `covered` (B, K, S), within the source."""
        return torch.minimum(covered.sum(-1).round().long(), lengths[:, None] - 1)

    def forward(self, queries: Tensor, keys: Tensor, lengths: Tensor, covered: Tensor) -> Tensor:
        """Weights (B, K, S) of one step of K rows (B, K, H); see `place`."""
        return nn.functional.one_hot(self.place(lengths, covered), keys.shape[1]).to(queries.dtype)

    def over_targets(self, queries: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """Weights (B, T, S) of all steps (B, T, H) of a row."""
        steps, places = queries.shape[1], keys.shape[1]
        return torch.eye(steps, places, dtype=queries.dtype, device=queries.device).expand(
            len(queries), -1, -1
        )


def repetition(weights: Tensor) -> Tensor:
    """How much each step attends to what earlier ones attended to, the coverage loss of See et al. (2017): weights
    (B, T, S) give (B, T)."""
    before = weights.cumsum(1) - weights
    return torch.minimum(weights, before).sum(-1)
