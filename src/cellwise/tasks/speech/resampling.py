"""From one sampling rate to another, by a sinc with a Kaiser window (Smith 2002, "Digital audio resampling").

An output sample depends on a few input samples around its own time and on nothing else, so a recording that comes piece
by piece gives what the whole one gives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Resampler", "ResamplerStream"]

ZEROS = 24  # zero crossings of the sinc on either side
ROLL_OFF = 0.94  # where the band ends, as a share of the lower Nyquist frequency
BETA = 9.0  # of the Kaiser window: what is aliased lies about 90 dB below
MOST_PHASES = 2048  # for which a table is kept
BLOCK = 2**15  # outputs at a time


class Resampler:
    """Samples (N,) at `source` Hz to (ceil(N * target / source),) at `target` Hz, float32."""

    def __init__(self, source: int, target: int) -> None:
        common = math.gcd(source, target)
        self.up, self.down = target // common, source // common
        self._cutoff = ROLL_OFF * min(1.0, target / source)
        self.reach = math.ceil(ZEROS / self._cutoff)
        self._table = self._weights(torch.arange(self.up)) if self.up <= MOST_PHASES else None

    def __call__(self, samples: Tensor) -> Tensor:
        if self.up == self.down:
            return samples
        around = torch.nn.functional.pad(samples, (self.reach, self.reach + 1))
        return self.between(around, -self.reach, 0, self.count(len(samples)))

    def count(self, samples: int) -> int:
        """How many samples come of so many."""
        return -(-samples * self.up // self.down)

    def between(self, samples: Tensor, start: int, first: int, last: int) -> Tensor:
        """The outputs from number `first` up to `last`; samples[0] is input number `start`."""
        parts = []
        for begin in range(first, last, BLOCK):
            numbers = torch.arange(begin, min(last, begin + BLOCK))
            phases = numbers * self.down % self.up
            weights = self._weights(phases) if self._table is None else self._table[phases]
            left = numbers * self.down // self.up - self.reach + 1 - start
            parts.append((samples.unfold(0, 2 * self.reach, 1)[left] * weights).sum(1))
        return torch.cat(parts) if parts else samples[:0]

    def _weights(self, phases: Tensor) -> Tensor:
        """Weights (P, 2 * reach) of the inputs around an output that lies `phase` / up behind an input."""
        offsets = torch.arange(1 - self.reach, self.reach + 1, dtype=torch.float64)
        times = offsets - phases[:, None].double() / self.up
        inside = (1 - (times / self.reach) ** 2).clamp(min=0)
        window = torch.i0(BETA * inside.sqrt()) / torch.i0(torch.tensor(BETA, dtype=torch.float64))
        weights = self._cutoff * torch.sinc(self._cutoff * times) * window
        return (weights / weights.sum(1, keepdim=True)).float()


class ResamplerStream:
    """The same of a recording that comes in pieces: `feed` gives what can be said so far, `end` the rest."""

    def __init__(self, source: int, target: int) -> None:
        self._resampler = Resampler(source, target)
        self._is_idle = source == target
        self._kept = torch.zeros(self._resampler.reach)
        self._start, self._taken, self._given = -self._resampler.reach, 0, 0

    def feed(self, samples: Tensor) -> Tensor:
        """Take samples (N,); the outputs that no later input changes."""
        if self._is_idle:
            return samples
        self._taken += len(samples)
        self._kept = torch.cat([self._kept, samples])
        # output n is settled once the input floor(n * down / up) + reach is there
        settled = (self._taken - self._resampler.reach) * self._resampler.up
        return self._give(max(self._given, -(-settled // self._resampler.down)))

    def end(self) -> Tensor:
        """The outputs that are left, with silence behind the recording."""
        if self._is_idle:
            return torch.zeros(0)
        self._kept = torch.cat([self._kept, torch.zeros(self._resampler.reach + 1)])
        return self._give(self._resampler.count(self._taken))

    def _give(self, last: int) -> Tensor:
        made = self._resampler.between(self._kept, self._start, self._given, last)
        self._given = last
        needed = last * self._resampler.down // self._resampler.up - self._resampler.reach + 1
        self._kept, self._start = self._kept[needed - self._start :], needed
        return made
