"""A linear model on convolutions of a series: what a person would pick instead of a recurrent network.

The features are those of MiniRocket (Dempster et al. 2021): the share of steps at which a fixed kernel of nine weights,
at some dilation, exceeds a threshold taken from training series. They work for any length. A ridge regression on them
decides, its strength chosen by leaving out one series at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ConvolutionModel"]

KERNELS = 84  # three of nine weights are 2, the others -1
THRESHOLDS = 120  # of a kernel, over all dilations
MOST_DILATIONS = 16
ENTRIES = 8  # pairs of a dilation and a draw of channels, at least, where there are several channels
MOST_SERIES = 2500  # that the regression is fitted to: it solves a system of this size, in about five seconds
SAMPLE = 32  # series whose convolutions give the thresholds
BUDGET = 2**24  # numbers that are held at once
OFF = 1e-4  # of the spread of a kernel's values
STRENGTHS = np.logspace(-2, 5, 15)


@dataclass(frozen=True, eq=False)
class ConvolutionModel:
    """dilations (P,); channels (P, 84, D): which ones a kernel adds up, 0 or 1; thresholds (P, 84, Q); mean, spread
    (F,) of the F = P * 84 * Q features; weights (F, C) and bias (C,) float32, which give logits, or numbers."""

    dilations: tuple[int, ...]
    channels: Tensor
    thresholds: Tensor
    mean: Tensor
    spread: Tensor
    weights: Tensor
    bias: Tensor

    name = "linear model on convolutions"

    @classmethod
    def fit(cls, series: Sequence[Tensor], targets: Tensor, outputs: int) -> ConvolutionModel:
        """Fit to series (T, D) float32 and classes (N,) int64 from 0 to `outputs` - 1, or numbers (N,) float32."""
        generator = np.random.default_rng(0)
        used = torch.from_numpy(generator.permutation(len(series))[:MOST_SERIES])
        chosen, targets = [series[row] for row in used.tolist()], targets[used]
        kernels = _kernels(chosen, generator)
        has_classes = not targets.is_floating_point()
        wanted = (nn.functional.one_hot(targets, outputs) if has_classes else targets[:, None]).double()
        features = _features(chosen, *kernels).double()
        mean, spread = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
        weights, bias, left_out = _ridge((features - mean) / spread, wanted)
        factor = _sharpness(left_out, targets) if has_classes else 1.0
        fitted = (mean, spread, factor * weights, factor * bias)
        return cls(*kernels, *(each.float() for each in fitted))

    def outputs(self, series: Sequence[Tensor]) -> Tensor:
        """Logits (N, C) or numbers (N, 1) of series (T, D), float32."""
        made = _features(series, self.dilations, self.channels, self.thresholds)
        return ((made - self.mean) / self.spread) @ self.weights + self.bias

    def tensors(self) -> dict[str, Tensor]:
        """What a run folder holds of it."""
        made = {name: getattr(self, name) for name in _TENSORS}
        return {f"convolutions/{name}": value for name, value in made.items()} | {
            "convolutions/dilations": torch.tensor(self.dilations)
        }

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], width: int, outputs: int) -> ConvolutionModel:
        """The inverse of `tensors`, for series of `width` numbers a step. KeyError or ValueError if they are none."""
        dilations = tuple(tensors["convolutions/dilations"].tolist())
        made = cls(dilations, *(tensors[f"convolutions/{name}"] for name in _TENSORS))
        count, quantiles = len(dilations), made.thresholds.shape[-1] if made.thresholds.dim() == 3 else 0
        features = count * KERNELS * quantiles
        shapes = {
            "channels": (count, KERNELS, width),
            "thresholds": (count, KERNELS, quantiles),
            "mean": (features,),
            "spread": (features,),
            "weights": (features, outputs),
            "bias": (outputs,),
        }
        for name, shape in shapes.items():
            value = getattr(made, name)
            if tuple(value.shape) != shape or value.dtype != torch.float32:
                raise ValueError(f"the {name} of its convolutions are none")
        if not all(type(each) is int and 1 <= each < 2**31 for each in dilations) or not features:
            raise ValueError("the dilations of its convolutions are none")
        return made


_TENSORS = ("channels", "thresholds", "mean", "spread", "weights", "bias")


def _weights() -> Tensor:
    """The kernels (84, 9)."""
    made = torch.full((KERNELS, 9), -1.0)
    for row, chosen in enumerate(combinations(range(9), 3)):
        made[row, list(chosen)] = 2.0
    return made


def _kernels(
    series: Sequence[Tensor], generator: np.random.Generator
) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """Dilations, channels and thresholds for series like these."""
    longest, width = max(map(len, series)), series[0].shape[1]
    most = max(0.0, np.log2(max(1, longest - 1) / 8))
    dilations = tuple(
        int(each) for each in np.unique(np.logspace(0, most, MOST_DILATIONS, base=2).astype(int))
    )
    # Few dilations (short series) come several times, with other channels.
    if width > 1:
        dilations *= -(-ENTRIES // len(dilations))
    channels = torch.zeros(len(dilations), KERNELS, width)
    for place in range(len(dilations)):
        for kernel in range(KERNELS):
            number = int(2 ** generator.uniform(0, np.log2(min(width, 9) + 1)))
            channels[place, kernel, generator.choice(width, number, replace=False)] = 1.0
    quantiles = -(-THRESHOLDS // len(dilations))
    # evenly spread whatever their number, in an order without pattern
    levels = torch.from_numpy((np.arange(1, quantiles * len(dilations) + 1) * 0.6180339887498949) % 1)
    chosen = [series[row] for row in generator.permutation(len(series))[:SAMPLE]]
    thresholds = torch.zeros(len(dilations), KERNELS, quantiles)
    for place, dilation in enumerate(dilations):
        made = torch.cat([out[:, valid] for out, valid in _convolved(chosen, dilation, channels[place])], 1)
        own = levels[place * quantiles : (place + 1) * quantiles].float()
        ordered = made.sort(dim=1).values
        index = (own * (ordered.shape[1] - 1)).long()
        after = ordered[:, (index + 1).clamp(max=ordered.shape[1] - 1)]
        # Between two values, and off the value where both are equal: what is as large as a threshold would otherwise
        # be over it or not by how a sum is rounded, which depends on the lengths of the series beside it.
        thresholds[place] = (ordered[:, index] + after) / 2 + OFF * ordered.std(1, correction=0)[:, None]
    return dilations, channels, thresholds


def _convolved(series: Sequence[Tensor], dilation: int, channels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What the kernels say of a few series at a time: (84, n, T), and which steps are theirs (n, T)."""
    weights = channels[:, :, None] * _weights()[:, None]  # (84, D, 9)
    longest = max(map(len, series))
    size = max(1, BUDGET // (KERNELS * longest * 8))
    for begin in range(0, len(series), size):
        part = series[begin : begin + size]
        values = nn.utils.rnn.pad_sequence(list(part), batch_first=True).transpose(1, 2)  # (n, D, T)
        lengths = torch.tensor([len(each) for each in part])
        made = nn.functional.conv1d(values, weights, padding=4 * dilation, dilation=dilation)
        yield made.transpose(0, 1), torch.arange(values.shape[2]) < lengths[:, None]


def _features(
    series: Sequence[Tensor], dilations: tuple[int, ...], channels: Tensor, thresholds: Tensor
) -> Tensor:
    """The share of steps over each threshold, float32 (N, F)."""
    columns = []
    for place, dilation in enumerate(dilations):
        rows = []
        for made, valid in _convolved(series, dilation, channels[place]):
            length = valid.sum(1).float()
            over = [
                ((made > thresholds[place, :, each, None, None]) & valid).sum(2) / length
                for each in range(thresholds.shape[2])
            ]
            rows.append(torch.stack(over, dim=2).transpose(0, 1).flatten(1))  # (n, 84 * Q)
        columns.append(torch.cat(rows))
    return torch.cat(columns, dim=1)


def _ridge(features: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (F, C), bias (C,), and what is said of each row (N, C) by the regression without it, for the strength
    with the least squared error of those (the closed form of leaving one out). features (N, F): of mean 0."""
    mean = wanted.mean(0)
    centred = wanted - mean
    values, vectors = torch.linalg.eigh(features @ features.T)
    values = values.clamp(min=0)
    turned = vectors.T @ centred
    best: tuple[float, Tensor, Tensor] | None = None
    count = len(features)
    for strength in STRENGTHS:
        inverse = 1 / (values + float(strength))
        dual = vectors @ (inverse[:, None] * turned)
        # Without the direction in which all rows are alike, of eigenvalue 0: the bias takes it up, unpenalised.
        diagonal = (vectors.square() @ inverse - 1 / (count * strength)).clamp(min=1e-12)
        error = dual / diagonal[:, None]
        loss = float(error.square().mean())
        if best is None or loss < best[0]:
            best = (loss, dual, wanted - error)
    assert best is not None
    return features.T @ best[1], mean, best[2]


def _sharpness(scores: Tensor, labels: Tensor) -> float:
    """The factor that makes logits of scores between 0 and 1 with the least log loss."""
    logs = torch.linspace(0.0, 2.5, 51, dtype=torch.float64).exp()
    losses = torch.stack([nn.functional.cross_entropy(scores * factor, labels) for factor in logs])
    return float(logs[losses.argmin()])
