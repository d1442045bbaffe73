"""The network: recurrent layers over a sequence, a summary of what they said, and a linear layer on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent

__all__ = ["Batch", "NetworkConfig", "SequenceNetwork", "Sizes"]


UNKNOWN = 0  # the token that stands for all that training has not seen


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences with what is to be said of them.

    inputs: tokens (T, B) int64, or values (T, B, D) float32; lengths (B,) int64, from 0 to T; targets (B,): classes
    int64 or numbers float32."""

    inputs: Tensor
    lengths: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Sizes:
    """Those that the options of these names have, or the language model that a network begins with."""

    embedding_size: int
    hidden_size: int
    num_layers: int


@dataclass(frozen=True)
class NetworkConfig:
    """cell; tokens: how many are known (0 for series); inputs: size of an embedding, or numbers in a step; outputs:
    classes, or 1. The rest as the options of these names."""

    cell: Any
    tokens: int
    inputs: int
    outputs: int
    hidden_size: int
    num_layers: int
    directions: int
    pooling: str
    dropout: float
    input_dropout: float = 0.0
    word_dropout: float = 0.0


class SequenceNetwork(nn.Module):
    """Tokens (T, B) or values (T, B, D), with lengths (B,), to logits or numbers (B, outputs).

    `blend` (2,) weighs the network's outputs and those of the linear model beside it; their sum is the answer. It is
    fitted on what was held out, so it also says how sure the network may be."""

    blend: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.tokens, config.inputs) if config.tokens else None
        self.layer = Recurrent(
            config.cell,
            config.inputs,
            config.hidden_size,
            config.num_layers,
            dropout=config.dropout if config.num_layers > 1 else 0.0,
            bidirectional=config.directions == 2,
        )
        width = config.hidden_size * config.directions
        self.attend = nn.Linear(width, 1) if config.pooling == "attention" else None
        self.drop = nn.Dropout(config.dropout)
        self.decode = nn.Linear(width * (3 if config.pooling == "all" else 1), config.outputs)
        self.register_buffer("blend", torch.tensor([1.0, 0.0]))

    def forward(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Logits or numbers (B, outputs)."""
        return self.read(self.embedded(inputs), lengths)

    def blended(self, outputs: Tensor, linear: Tensor | None) -> Tensor:
        """The answer, float64 (B, outputs) on the CPU: what this network said, and what the linear model did."""
        own, other = self.blend.tolist()
        made = own * outputs.cpu().double()
        return made if linear is None else made + other * linear.double()

    def embedded(self, inputs: Tensor) -> Tensor:
        """What the recurrent layers read, (T, B, E): embeddings of tokens, or values as they are."""
        if self.embed is None:
            return inputs
        if self.training and self.config.word_dropout:
            gone = torch.rand(inputs.shape, device=inputs.device) < self.config.word_dropout
            inputs = inputs.masked_fill(gone, UNKNOWN)
        return self.embed(inputs)

    def read(self, steps: Tensor, lengths: Tensor) -> Tensor:
        """Logits or numbers (B, outputs) of what `embedded` made."""
        if self.training and self.config.input_dropout:
            # One mask for all steps of a sequence: a size of the embedding is there or not (Gal and Ghahramani 2016).
            keep = 1 - self.config.input_dropout
            steps = steps * (torch.rand_like(steps[:1]) < keep) / keep
        output, _ = self.layer(steps, lengths=lengths)
        return self.decided(self.pooled(output, lengths))

    def decided(self, pooled: Tensor) -> Tensor:
        """Logits or numbers (B, outputs) of a summary (B, P)."""
        made: Tensor = self.decode(self.drop(pooled))
        return made

    def pooled(self, output: Tensor, lengths: Tensor) -> Tensor:
        """The summary (B, P) of what the layers said (T, B, width) of each step; zeros of an empty sequence."""
        valid = torch.arange(len(output), device=output.device)[:, None] < lengths  # (T, B)
        named = {"last": self._last, "mean": _mean, "max": _max, "attention": self._attended}
        kinds = ("last", "mean", "max") if self.config.pooling == "all" else (self.config.pooling,)
        return torch.cat([named[kind](output, lengths, valid) for kind in kinds], dim=1)

    def _last(self, output: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        """Each direction's output at its last step: the forward one ends where the sequence ends, the other at 0."""
        row, size = torch.arange(output.shape[1], device=output.device), self.config.hidden_size
        last = output[(lengths - 1).clamp(min=0), row]
        return torch.cat([last[:, :size], output[0, :, size:]], dim=1)

    def _attended(self, output: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
        """The mean over steps, weighted by a score that is learned (Yang et al. 2016, without its hidden layer)."""
        assert self.attend is not None
        score = self.attend(output)[..., 0].masked_fill(~valid, float("-inf"))
        weight = score.softmax(0).nan_to_num()  # an empty sequence has no step to weigh
        return (output * weight[..., None]).sum(0)


def _mean(output: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
    return output.sum(0) / lengths.clamp(min=1)[:, None]  # beyond a row's end the output is zero


def _max(output: Tensor, lengths: Tensor, valid: Tensor) -> Tensor:
    low = torch.finfo(output.dtype).min
    return output.masked_fill(~valid[..., None], low).amax(0) * (lengths > 0)[:, None]
