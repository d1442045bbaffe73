"""The network of a recogniser: features in, log-probabilities of letters and of the blank out (Graves et al. 2006)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent

__all__ = ["BLANK", "Sizes", "SpeechNetwork"]

BLANK = 0  # the class that stands for no letter


@dataclass(frozen=True)
class Sizes:
    """The sizes of a network. reduction: frames per step of the recurrent layers."""

    bands: int
    reduction: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    dropout: float


class SpeechNetwork(nn.Module):
    """Log-probabilities (T', B, K) from features (T, B, F), with T' = ceil(T / reduction).

    A step of the recurrent layers sees the `reduction` frames that are its own and as many on either side; fewer steps
    are what makes training fast. Frames behind the end of a recording must be zero, as those before its beginning are
    here, so that a recording in a batch gives what it gives by itself.

    prior: how often each class is right; the network starts from there, with a bias that says so. It then has not to
    learn first that most steps are blank, which is where such networks spend hours otherwise."""

    mean: Tensor
    scale: Tensor

    def __init__(self, cell: Any, sizes: Sizes, mean: Tensor, scale: Tensor, prior: Tensor) -> None:
        super().__init__()
        self.reduction = sizes.reduction
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self.stack = nn.Linear(3 * sizes.reduction * sizes.bands, sizes.hidden_size)
        self.layer = Recurrent(
            cell,
            sizes.hidden_size,
            sizes.hidden_size,
            sizes.num_layers,
            dropout=sizes.dropout if sizes.num_layers > 1 else 0.0,
            bidirectional=sizes.bidirectional,
        )
        self.dropout = nn.Dropout(sizes.dropout)
        self.decode = nn.Linear((1 + sizes.bidirectional) * sizes.hidden_size, len(prior))
        with torch.no_grad():
            self.decode.bias.copy_(prior.log())

    def normalized(self, features: Tensor) -> Tensor:
        """Features with mean 0 and deviation 1 in each band, over the training data."""
        return (features - self.mean) * self.scale

    def steps(self, frames: Tensor) -> Tensor:
        """How many steps so many frames give."""
        return -(-frames // self.reduction)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities (T', B, K) of normalised features (T, B, F), zero from `lengths` (B,) on."""
        steps = self.steps(lengths)
        output, _ = self.layer(self.stacked(features), lengths=steps.cpu())
        return self.scores(self.dropout(output))

    def stacked(self, features: Tensor) -> Tensor:
        """The input of the recurrent layers (T', B, H)."""
        count, reduction = len(features), self.reduction
        behind = -count % reduction + reduction
        padded = nn.functional.pad(features, (0, 0, 0, 0, reduction, behind))
        windows = padded.unfold(0, 3 * reduction, reduction)  # (T', B, F, 3 * reduction)
        return self.embed(windows)

    def embed(self, windows: Tensor) -> Tensor:
        """The input of the recurrent layers for windows (..., F, 3 * reduction)."""
        return self.dropout(self.stack(windows.flatten(-2)).relu())

    def scores(self, output: Tensor) -> Tensor:
        """Log-probabilities of the outputs of the recurrent layers."""
        return self.decode(output).log_softmax(-1)
