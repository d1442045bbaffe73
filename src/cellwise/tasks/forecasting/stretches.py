"""Stretches of series, and batches of them.

A stretch is up to `CONTEXT` steps that the recurrent layer walks, with every cutoff in them, the history
before them that only the scaling looks at, and the horizon after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.forecasting.series import Series

__all__ = ["CONTEXT", "Batch", "Source", "Stretch", "amplify", "collate", "history_steps", "mix"]

CONTEXT = 128  # steps that the recurrent layer walks
HISTORY_SEASONS = 12  # before them, for the season and the slope


def history_steps(season_length: int) -> int:
    """How much of the past before the context the scaling may use."""
    return HISTORY_SEASONS * season_length


@dataclass(frozen=True, eq=False)
class Stretch:
    """L steps of one series, in learned units.

    filled (L,): history and context without gaps; values (L + H,): the same and the horizon, NaN where
    missing; known (C + H, K) and past (C, P): standardised, from the start of the context on; start: steps
    of history, so that L = start + C; linear: whether learned units are not logarithms."""

    filled: np.ndarray
    values: np.ndarray
    known: np.ndarray
    past: np.ndarray
    start: int
    first: int
    linear: bool

    @property
    def context(self) -> int:
        """C, the steps of context."""
        return len(self.past)


@dataclass(frozen=True, eq=False)
class Source:
    """A series from its first observation on, with its covariates, standardised: known (at least T, K),
    past (T, P)."""

    series: Series
    known: np.ndarray
    past: np.ndarray

    def __len__(self) -> int:
        return len(self.series.values)

    def extend(self, values: np.ndarray) -> Source:
        """With more values, in learned units, after the last; the past covariates stay as they were last."""
        past = np.pad(self.past, ((0, len(values)), (0, 0)), mode="edge")
        return Source(self.series.extend(values), self.known, past)

    def cut(self, begin: int, start: int, stop: int, horizon: int, unripe: int = 0) -> Stretch:
        """History [begin, start), context [start, stop), and the horizon after it; what does not exist is NaN
        (covariates: 0). Nothing is learned from the first `unripe` steps.
        """
        return Stretch(
            filled=self.series.filled[begin:stop],
            values=_reach(self.series.values[begin : stop + horizon], stop - begin + horizon, np.nan),
            known=_reach(self.known[start : stop + horizon], stop - start + horizon, 0.0),
            past=self.past[start:stop],
            start=start - begin,
            first=max(0, unripe - (start - begin)),
            linear=not self.series.logarithmic,
        )


def _reach(array: np.ndarray, length: int, value: float) -> np.ndarray:
    """The array, continued to a length with a value. (np.pad takes eight times as long for a short one.)"""
    found = np.full((length, *array.shape[1:]), value, array.dtype)
    found[: len(array)] = array
    return found


def amplify(one: Stretch, factor: float) -> Stretch:
    """All movements larger or smaller by a factor, in learned units."""
    return replace(one, filled=factor * one.filled, values=factor * one.values)


def mix(one: Stretch, other: Stretch, share: float) -> Stretch:
    """A series between two: `share` of the first, the rest of the other, in learned units. Both must have
    the same steps."""

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return share * a + (1 - share) * b

    return Stretch(
        filled=between(one.filled, other.filled),
        values=between(one.values, other.values),
        known=between(one.known, other.known),
        past=between(one.past, other.past),
        start=one.start,
        first=max(one.first, other.first),
        linear=one.linear,
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """B stretches, each from its left edge on, padded at the right; S the most steps, C the most steps of
    context.

    filled (B, S): float64; observed (B, S): bool, False where a gap was filled; linear (B,): bool; start
    (B,): where the context begins; length (B,): steps of context; future (B, C, H): float64, what came
    after each cutoff, NaN where that is unknown; known (B, C + H, K) and past (B, C, P): float32, from the
    start of the context on; cutoffs (M,): the steps of the context to learn from."""

    filled: Tensor
    observed: Tensor
    linear: Tensor
    start: Tensor
    length: Tensor
    future: Tensor
    known: Tensor
    past: Tensor
    cutoffs: Tensor


def collate(stretches: Sequence[Stretch], horizon: int, cutoffs: slice = slice(None)) -> Batch:
    """Pad stretches to one shape. cutoffs: which steps of the context to learn from."""
    steps = max(len(one.filled) for one in stretches)
    context = max(one.context for one in stretches)
    ahead = [_reach(one.values[one.start + 1 :], context + horizon, np.nan) for one in stretches]
    length = torch.tensor([one.context for one in stretches])
    future = torch.from_numpy(np.stack(ahead)).unfold(1, horizon, 1)[:, :context]
    first = torch.tensor([one.first for one in stretches])
    step = torch.arange(context)
    idle = (step < first[:, None]) | (step >= length[:, None])
    return Batch(
        filled=_stack([_reach(one.filled, steps, one.filled[-1]) for one in stretches]),
        observed=_stack([~np.isnan(_reach(one.values[: len(one.filled)], steps, 0.0)) for one in stretches]),
        linear=torch.tensor([one.linear for one in stretches]),
        start=torch.tensor([one.start for one in stretches]),
        length=length,
        future=future.masked_fill(idle[..., None], torch.nan),
        known=_stack([_reach(one.known, context + horizon, 0.0) for one in stretches]).float(),
        past=_stack([_reach(one.past, context, 0.0) for one in stretches]).float(),
        cutoffs=step[cutoffs],
    )


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
