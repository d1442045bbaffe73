"""Log-mel features: how strong each of some bands is, a hundred times a second (Davis and Mermelstein 1980).

A frame is a window of 25 ms, and depends on nothing outside it: frames of a stream are those of the whole recording.
Speed is changed here too: with a larger step between windows and bands that are moved by the same factor, a recording
reads as one that was played faster (Ko et al. 2015), without computing its samples anew.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["FeatureStream", "LogMel"]

WINDOW, STEP = 0.025, 0.010  # seconds
LOWEST = 60.0  # Hz: below it is hum
FLOOR = 1e-6  # added to the power of a band, about that of a sound of -80 dB of full scale


class LogMel:
    """Samples (N,) from -1 to 1 at `rate` Hz to features (T, bands), float32."""

    def __init__(self, rate: int, bands: int) -> None:
        self.rate, self.bands = rate, bands
        self.window, self.step = round(WINDOW * rate), round(STEP * rate)
        self.size = 2 ** math.ceil(math.log2(self.window))
        self._weights = torch.hann_window(self.window, periodic=False)

    def __call__(self, samples: Tensor, speed: float = 1.0) -> Tensor:
        """Features; of the recording played `speed` times as fast. At least one frame."""
        if len(samples) < self.window:
            samples = torch.nn.functional.pad(samples, (0, self.window - len(samples)))
        frames = samples.unfold(0, self.window, round(self.step * speed)) * self._weights
        power = torch.fft.rfft(frames, n=self.size).abs().square()
        return (power @ _bands(self.rate, self.bands, self.size, speed) + FLOOR).log()

    def count(self, samples: int) -> int:
        """How many frames so many samples give."""
        return 1 + max(0, samples - self.window) // self.step


@lru_cache(maxsize=64)
def _bands(rate: int, bands: int, size: int, speed: float) -> Tensor:
    """Weights (size / 2 + 1, bands) of the frequencies in each band: triangles that are evenly spaced in mel."""
    top = _mel(torch.tensor(rate / 2, dtype=torch.float64))
    low = _mel(torch.tensor(LOWEST, dtype=torch.float64))
    edges = low + (top - low) * torch.arange(bands + 2, dtype=torch.float64) / (bands + 1)
    frequencies = _mel(torch.arange(size // 2 + 1, dtype=torch.float64) * rate / size * speed)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()


def _mel(frequency: Tensor) -> Tensor:
    return 1127.0 * (1 + frequency / 700.0).log()


class FeatureStream:
    """Features of samples that come in pieces: `feed` gives the frames that are complete."""

    def __init__(self, mel: LogMel) -> None:
        self._mel = mel
        self._kept = torch.zeros(0)
        self._given = 0

    def feed(self, samples: Tensor) -> Tensor:
        """Take samples (N,); the next frames (T, bands), T >= 0."""
        self._kept = torch.cat([self._kept, samples])
        if len(self._kept) < self._mel.window:
            return torch.zeros(0, self._mel.bands)
        made = self._mel(self._kept)
        self._kept = self._kept[len(made) * self._mel.step :]
        self._given += len(made)
        return made

    def end(self) -> Tensor:
        """The one frame of a recording that was shorter than a window; else none."""
        return torch.zeros(0, self._mel.bands) if self._given else self._mel(self._kept)
