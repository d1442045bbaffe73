"""The network of a recogniser: features in, log-probabilities of letters and of the blank out (Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from cellwise.nn import Recurrent

__all__ = ["BLANK", "PlainNetwork", "Sizes", "SpeechNetwork"]

BLANK = 0  # the class that stands for no letter
CHANNELS = 32
KERNELS = 7, 5  # bands under each convolution, every second of which it gives


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
    are what makes training fast. Convolutions over the bands, whose channels are these frames, make its input. Before
    each recurrent layer and behind the last the values of a step are normalised (Ba, Kiros, Hinton 2016), which does
    not look at other steps, so that a stream gives what the whole recording gives.

    Frames behind the end of a recording must be zero, as those before its beginning are here, so that a recording in a
    batch gives what it gives by itself.

    prior: how often each class is right; the network starts from there, with a bias that says so. It then has not to
    learn first that most steps are blank, which is where such networks spend hours otherwise."""

    mean: Tensor
    scale: Tensor

    def __init__(self, cell: Any, sizes: Sizes, mean: Tensor, scale: Tensor, prior: Tensor) -> None:
        super().__init__()
        self.reduction = sizes.reduction
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", scale.clone())
        self._build(cell, sizes)
        self.dropout = nn.Dropout(sizes.dropout)
        self.decode = nn.Linear((1 + sizes.bidirectional) * sizes.hidden_size, len(prior))
        with torch.no_grad():
            self.decode.bias.copy_(prior.log())

    def _build(self, cell: Any, sizes: Sizes) -> None:
        width = sizes.bands
        convolutions = []
        channels = 3 * sizes.reduction
        for kernel in KERNELS:
            convolutions += [nn.Conv1d(channels, CHANNELS, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
            channels, width = CHANNELS, (width + 1) // 2
        self.front = nn.Sequential(
            *convolutions,
            nn.Flatten(),
            nn.Linear(channels * width, sizes.hidden_size),
            nn.LayerNorm(sizes.hidden_size),
            nn.ReLU(),
        )
        output = (1 + sizes.bidirectional) * sizes.hidden_size
        inputs = (sizes.hidden_size, *[output] * (sizes.num_layers - 1))
        self.layers = nn.ModuleList(
            Recurrent(cell, each, sizes.hidden_size, bidirectional=sizes.bidirectional) for each in inputs
        )
        self.norms = nn.ModuleList(nn.LayerNorm(output) for _ in inputs)

    @property
    def is_streaming(self) -> bool:
        """Whether it reads in one direction only."""
        return not any(layer.bidirectional for layer in self._recurrent)

    @property
    def _recurrent(self) -> Iterable[Recurrent]:
        return cast(Iterable[Recurrent], self.layers)

    def normalized(self, features: Tensor) -> Tensor:
        """Features with mean 0 and deviation 1 in each band, over the training data."""
        return (features - self.mean) * self.scale

    def steps(self, frames: Tensor) -> Tensor:
        """How many steps so many frames give."""
        return -(-frames // self.reduction)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities (T', B, K) of normalised features (T, B, F), zero from `lengths` (B,) on."""
        return self.scores(self.recurrent(self.stacked(features), self.steps(lengths).cpu()))

    def stacked(self, features: Tensor) -> Tensor:
        """The input of the recurrent layers (T', B, H)."""
        count, reduction = len(features), self.reduction
        behind = -count % reduction + reduction
        padded = nn.functional.pad(features, (0, 0, 0, 0, reduction, behind))
        windows = padded.unfold(0, 3 * reduction, reduction)  # (T', B, F, 3 * reduction)
        return self.embed(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])

    def embed(self, windows: Tensor) -> Tensor:
        """The input of the recurrent layers (N, H) for windows (N, F, 3 * reduction)."""
        embedded: Tensor = self.dropout(self.front(windows.transpose(1, 2)))
        return embedded

    def recurrent(self, x: Tensor, steps: Tensor) -> Tensor:
        """The output of the recurrent layers, (T', B, H) or with two directions (T', B, 2 H)."""
        for layer, norm in zip(self._recurrent, self.norms, strict=True):
            x = self.dropout(norm(layer(x, lengths=steps)[0]))
        return x

    def stream(self) -> Callable[[Tensor], Tensor]:
        """Takes the input of the recurrent layers (H,) step by step, and gives their output."""
        streams = [layer.stream() for layer in self._recurrent]

        def step(x: Tensor) -> Tensor:
            for layer, norm in zip(streams, self.norms, strict=True):
                x = norm(layer(x))
            return x

        return step

    def scores(self, output: Tensor) -> Tensor:
        """Log-probabilities of the outputs of the recurrent layers."""
        return self.decode(output).log_softmax(-1)


class PlainNetwork(SpeechNetwork):
    """The network of version 0.4.0: one product makes the input of the recurrent layers, and nothing is normalised."""

    def _build(self, cell: Any, sizes: Sizes) -> None:
        self.stack = nn.Linear(3 * sizes.reduction * sizes.bands, sizes.hidden_size)
        self.layer = Recurrent(
            cell,
            sizes.hidden_size,
            sizes.hidden_size,
            sizes.num_layers,
            dropout=sizes.dropout if sizes.num_layers > 1 else 0.0,
            bidirectional=sizes.bidirectional,
        )

    @property
    def _recurrent(self) -> Iterable[Recurrent]:
        return (self.layer,)

    def embed(self, windows: Tensor) -> Tensor:
        """See `SpeechNetwork`."""
        embedded: Tensor = self.dropout(self.stack(windows.flatten(1)).relu())
        return embedded

    def recurrent(self, x: Tensor, steps: Tensor) -> Tensor:
        """See `SpeechNetwork`."""
        output: Tensor = self.dropout(self.layer(x, lengths=steps)[0])
        return output

    def stream(self) -> Callable[[Tensor], Tensor]:
        """See `SpeechNetwork`."""
        step: Callable[[Tensor], Tensor] = self.layer.stream()
        return step
