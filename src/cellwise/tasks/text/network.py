"""The network: an embedding of characters, recurrent layers, and logits of the next character."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cellwise.nn import Recurrent

__all__ = ["CharacterNetwork", "Regularisation", "detached"]


@dataclass(frozen=True)
class Regularisation:
    """How a network is kept from learning a text by heart (Merity, Keskar, Socher 2018, "Regularizing and Optimizing
    LSTM Language Models").

    input_dropout, embedding_dropout, weight_dropout: probabilities, beside that of the outputs. locked: the same mask
    at all steps (Gal, Ghahramani 2016). activation, slowness: weights of the squared outputs, and of their squared
    change from step to step, in the loss."""

    input_dropout: float = 0.0
    embedding_dropout: float = 0.0
    weight_dropout: float = 0.0
    locked: bool = False
    activation: float = 0.0
    slowness: float = 0.0


PLAIN = Regularisation()


class CharacterNetwork(nn.Module):
    """`embed` (V, E), `layer`, `decode` (V, H): three parts that can be used one by one.

    tied: the output weights are those of the embedding, behind a projection where E is not H (Press, Wolf 2017)."""

    def __init__(
        self,
        cell: Any,
        characters: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int,
        dropout: float,
        tied: bool = False,
        regularisation: Regularisation = PLAIN,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(characters, embedding_size)
        between = dropout if num_layers > 1 else 0.0
        self.layer = Recurrent(cell, embedding_size, hidden_size, num_layers, dropout=between)
        self.drop = nn.Dropout(dropout)
        self.decode: Any = (
            TiedDecoder(self.embed, hidden_size) if tied else nn.Linear(hidden_size, characters)
        )
        self.regularisation = regularisation
        recurrent = [name for name, _ in self.layer.named_parameters() if name.startswith("weight_hh")]
        self._recurrent = tuple(recurrent)

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Ids (T, B) of characters to the logits of the next ones (T, B, V), and the state after the last."""
        output, state = self._layers(self._embedded(ids), state)
        return self.decode(self._dropped(output)), state

    def cross_entropy(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy, in nats per character, of each character after the first; ids (T + 1, B)."""
        logits, _ = self(ids[:-1])
        return functional.cross_entropy(logits.flatten(0, 1), ids[1:].flatten())

    def loss(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Cross-entropy with the penalties of its activations, and the state after the last step."""
        output, state = self._layers(self._embedded(ids[:-1]), state)
        dropped = self._dropped(output)
        loss = functional.cross_entropy(self.decode(dropped).flatten(0, 1), ids[1:].flatten())
        own = self.regularisation
        if own.activation:
            loss = loss + own.activation * dropped.square().mean()
        if own.slowness and len(output) > 1:
            loss = loss + own.slowness * (output[1:] - output[:-1]).square().mean()
        return loss, state

    def _embedded(self, ids: Tensor) -> Tensor:
        own = self.regularisation
        if not self.training or not (own.input_dropout or own.embedding_dropout):
            return self.embed(ids)
        weight = self.embed.weight
        if own.embedding_dropout:
            kept = torch.ones(len(weight), 1, dtype=weight.dtype, device=weight.device)
            weight = weight * functional.dropout(kept, own.embedding_dropout)
        embedded = functional.embedding(ids, weight)
        return _locked(embedded, own.input_dropout) if own.input_dropout else embedded

    def _layers(self, embedded: Tensor, state: Any) -> tuple[Tensor, Any]:
        share = self.regularisation.weight_dropout
        if not self.training or not share or not self._recurrent:
            return self.layer(embedded, state)
        weights = {
            name: functional.dropout(self.layer.get_parameter(name), share) for name in self._recurrent
        }
        return torch.func.functional_call(self.layer, weights, (embedded, state))

    def _dropped(self, output: Tensor) -> Tensor:
        if self.regularisation.locked and self.training and self.drop.p:
            return _locked(output, self.drop.p)
        return self.drop(output)


class TiedDecoder(nn.Module):
    """Logits (..., V) from outputs (..., H), with the weights of an embedding (V, E)."""

    def __init__(self, embed: nn.Embedding, hidden_size: int) -> None:
        super().__init__()
        self._embed = (embed,)  # in a tuple, so that its weights are stored once
        self.project = (
            None
            if embed.embedding_dim == hidden_size
            else nn.Linear(hidden_size, embed.embedding_dim, bias=False)
        )
        self.bias = nn.Parameter(torch.zeros(embed.num_embeddings))

    @property
    def weight(self) -> Tensor:
        """As that of a Linear: (V, H)."""
        weight = self._embed[0].weight
        return weight if self.project is None else weight @ self.project.weight

    def forward(self, output: Tensor) -> Tensor:
        narrow = output if self.project is None else self.project(output)
        return functional.linear(narrow, self._embed[0].weight, self.bias)


def _locked(values: Tensor, probability: float) -> Tensor:
    """Dropout (T, B, D) with one mask for all steps."""
    return values * functional.dropout(torch.ones_like(values[:1]), probability)


def detached(state: Any) -> Any:
    """A state that no gradient flows through."""
    return state.detach() if isinstance(state, Tensor) else tuple(each.detach() for each in state)
