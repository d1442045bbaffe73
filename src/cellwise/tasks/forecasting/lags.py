"""What a series did one long season ago: the same hour of the weeks before.

The walk of the network is shorter than a week of hours, and the season that is taken out is that of the day. Of a
longer season the network sees, for every step of the horizon, the values whole seasons before it. They are moved by as
much as the level has moved since, so that only their shape counts, and are told as distances from the base forecast, to
which each is an alternative: the network learns how much of each to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Lags", "lag_features"]

LOOK_BACK = 3  # long seasons
LAG_BOUND = 8.0  # of a distance, in units of an answer


@dataclass(frozen=True)
class Lags:
    """steps: how many steps back, G of them, possibly none; season: the mean over so many steps is the level."""

    steps: tuple[int, ...]
    season: int

    @classmethod
    def of(cls, seasons: Sequence[int], horizon: int) -> Lags:
        """For a season and longer ones, at a horizon: the latest whole long seasons that are known at every cutoff.
        A long season is rounded to whole short ones, so that both phases agree.

        >>> Lags.of((24, 168), 48)
        Lags(steps=(168, 336, 504), season=24)
        >>> Lags.of((7, 365), 400).steps
        (728, 1092, 1456)
        """
        season, found = seasons[0], []
        for long in seasons[1:]:
            whole = season * max(1, round(long / season))
            latest = -(-horizon // whole)
            found += [whole * (latest + k) for k in range(LOOK_BACK)]
        return cls(tuple(found), season)

    @property
    def reach(self) -> int:
        """How many steps before a step they look back."""
        return max(self.steps) + self.season if self.steps else 0

    def values(self, filled: np.ndarray, start: int, stop: int) -> np.ndarray:
        """What a series (T,) was each lag before the steps [start, stop): (stop - start, G), NaN where it was not."""
        steps = np.arange(start, stop)[:, None] - np.array(self.steps, dtype=np.int64)
        exists = (steps >= 0) & (steps < len(filled))
        return np.where(exists, filled[steps.clip(0, len(filled) - 1)], np.nan)

    def moved(self, filled: np.ndarray, start: int, stop: int) -> np.ndarray:
        """How far the level of a series (T,) has moved since each lag before the steps [start, stop):
        (stop - start, G), NaN where it had none."""
        if not self.steps:
            return np.zeros((stop - start, 0))
        level = np.full(len(filled), np.nan)
        sums = np.concatenate([[0.0], (filled - filled[0]).cumsum()])
        level[self.season - 1 :] = (sums[self.season :] - sums[: -self.season]) / self.season
        return level[start:stop, None] - self.values(level, start, stop)


def lag_features(values: Tensor, other: Tensor, unit: Tensor) -> Tensor:
    """Distances of values (..., G) from another value (...,), in units (...,): float32, bounded, 0 where unknown."""
    distance = (values - other[..., None]) / unit[..., None]
    return distance.nan_to_num(0.0).clamp(-LAG_BOUND, LAG_BOUND).to(torch.float32)
