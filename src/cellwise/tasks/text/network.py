"""The network: an embedding of characters, recurrent layers, and logits of the next character."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent

__all__ = ["CharacterNetwork"]


class CharacterNetwork(nn.Module):
    """`embed` (V, E), `layer`, `decode` (V, H): three parts that can be used one by one."""

    def __init__(
        self,
        cell: Any,
        characters: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, embedding_size)
        between = dropout if num_layers > 1 else 0.0
        self.layer = Recurrent(cell, embedding_size, hidden_size, num_layers, dropout=between)
        self.drop = nn.Dropout(dropout)
        self.decode = nn.Linear(hidden_size, characters)

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Ids (T, B) of characters to the logits of the next ones (T, B, V), and the state after the last."""
        output, state = self.layer(self.embed(ids), state)
        return self.decode(self.drop(output)), state

    def cross_entropy(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy, in nats per character, of each character after the first; ids (T + 1, B)."""
        logits, _ = self(ids[:-1])
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[1:].flatten())
