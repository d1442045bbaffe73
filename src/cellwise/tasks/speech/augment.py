"""Recordings as they might have been: hidden bands and moments, noise, another loudness and speed."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["drawn_speed", "masked", "noisy"]

BAND_MASKS, TIME_MASKS_A_SECOND = 2, 0.5
WIDEST_BANDS, LONGEST_FRAMES = 0.2, 20  # of the bands; of time, 200 ms
MOST_HIDDEN = 0.15  # of a recording, by one mask
SPEEDS = 5  # different ones, since each has bands of its own
LOUDER, SNR_LOW, SNR_HIGH = 10.0, 10.0, 40.0  # dB


def masked(features: Tensor) -> Tensor:
    """SpecAugment without warping (Park et al. 2019) on normalised features (T, F): what is hidden has the mean."""
    count, bands = features.shape
    features = features.clone()
    for _ in range(BAND_MASKS):
        width = _drawn(int(WIDEST_BANDS * bands) + 1)
        start = _drawn(bands - width + 1)
        features[:, start : start + width] = 0
    for _ in range(max(1, round(TIME_MASKS_A_SECOND * count / 100))):
        width = _drawn(min(LONGEST_FRAMES, int(MOST_HIDDEN * count)) + 1)
        start = _drawn(count - width + 1)
        features[start : start + width] = 0
    return features


def noisy(samples: Tensor) -> Tensor:
    """Samples (N,) with another loudness and white noise, 10 to 40 dB below the recording."""
    gain, ratio = ((2 * torch.rand(2) - 1) * torch.tensor([LOUDER, (SNR_HIGH - SNR_LOW) / 2])).tolist()
    ratio += (SNR_HIGH + SNR_LOW) / 2
    power = float(samples.square().mean().sqrt())
    return (samples + torch.randn(samples.shape) * (power * 10 ** (-ratio / 20))) * 10 ** (gain / 20)


def drawn_speed(most: float) -> float:
    """A speed between 1 - most and 1 + most, one of a few."""
    return 1 + most * (2 * _drawn(SPEEDS) / (SPEEDS - 1) - 1)


def _drawn(end: int) -> int:
    return int(torch.randint(end, ()))
