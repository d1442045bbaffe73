"""How well each state of the decoder fits each position of the source (Luong et al. 2015; Bahdanau et al. 2015)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["SCORES", "Attention"]

SCORES = ("dot", "general", "additive")


class Attention(nn.Module):
    """Weights of the source positions for each step of the decoder.

    score: "dot" q.m / sqrt(H), "general" q.(W m), "additive" v.tanh(W m + U q); q a decoder state, m an encoder output,
    both of size H."""

    def __init__(self, score: str, size: int) -> None:
        super().__init__()
        self.score = score
        self.key = None if score == "dot" else nn.Linear(size, size, bias=False)
        self.query = nn.Linear(size, size) if score == "additive" else None
        self.energy = nn.Parameter(torch.empty(size)) if score == "additive" else None
        if self.energy is not None:
            nn.init.uniform_(self.energy, -1 / math.sqrt(size), 1 / math.sqrt(size))

    def keys(self, memory: Tensor) -> Tensor:
        """What queries are compared with, (B, S, H), once for each source; memory (B, S, H)."""
        return memory if self.key is None else self.key(memory)

    def forward(self, queries: Tensor, keys: Tensor, lengths: Tensor) -> Tensor:
        """Weights (B, T, S) of queries (B, T, H) over keys (B, S, H); zero beyond the lengths (B,) of the sources."""
        if self.query is not None and self.energy is not None:
            scores = torch.tanh(self.query(queries)[:, :, None] + keys[:, None]) @ self.energy
        else:
            scores = torch.bmm(queries, keys.transpose(1, 2))
            if self.key is None:
                scores = scores / math.sqrt(queries.shape[-1])
        places = torch.arange(keys.shape[1], device=keys.device)
        beyond = places >= lengths[:, None]
        return scores.masked_fill(beyond[:, None], -math.inf).softmax(-1)
