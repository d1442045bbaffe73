"""Windows of series, and batches of them.

A window is up to `CONTEXT` steps that the recurrent layer walks, with every cutoff in them, the history
before them that only the scaling looks at, and the horizon after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.forecasting.lags import Lags
from cellwise.tasks.forecasting.series import Series

__all__ = [
    "CONTEXT",
    "Batch",
    "PreparedSeries",
    "Window",
    "collate",
    "history_steps",
    "mixup",
    "scale_augment",
]

CONTEXT = 128  # steps that the recurrent layer walks
NO_LAGS = Lags((), 1)
HISTORY_SEASONS = 12  # before them, for the season and the slope


def history_steps(season_length: int) -> int:
    """How much of the past before the context the scaling may use."""
    return HISTORY_SEASONS * season_length


@dataclass(frozen=True, eq=False)
class Window:
    """L steps of one series, in learned units.

    filled (L,): history and context without gaps; values (L + H,): the same and the horizon, NaN where
    missing; known (C + H, K) and past (C, P): standardised, from the start of the context on; lagged
    (C + H, G), moved (C, G): see `Lags`, NaN where unknown; start: steps of history, so that L = start + C;
    linear: whether learned units are not logarithms."""

    filled: np.ndarray
    values: np.ndarray
    known: np.ndarray
    past: np.ndarray
    lagged: np.ndarray
    moved: np.ndarray
    start: int
    first: int
    linear: bool

    @property
    def context(self) -> int:
        """C, the steps of context."""
        return len(self.past)


@dataclass(frozen=True, eq=False)
class PreparedSeries:
    """A series from its first observation on, with its covariates, standardised: known (at least T, K),
    past (T, P)."""

    series: Series
    known: np.ndarray
    past: np.ndarray

    def __len__(self) -> int:
        return len(self.series.values)

    def extend(self, values: np.ndarray) -> PreparedSeries:
        """With more values, in learned units, after the last; the past covariates stay as they were last."""
        past = np.pad(self.past, ((0, len(values)), (0, 0)), mode="edge")
        return PreparedSeries(self.series.extend(values), self.known, past)

    def cut(
        self,
        begin: int,
        start: int,
        stop: int,
        horizon: int,
        warmup_steps: int = 0,
        lags: Lags = NO_LAGS,
    ) -> Window:
        """History [begin, start), context [start, stop), and the horizon after it; what does not exist is NaN
        (covariates: 0). Nothing is learned from the first `warmup_steps` steps.
        """
        return Window(
            filled=self.series.filled[begin:stop],
            values=_reach(self.series.values[begin : stop + horizon], stop - begin + horizon, np.nan),
            known=_reach(self.known[start : stop + horizon], stop - start + horizon, 0.0),
            past=self.past[start:stop],
            lagged=lags.values(self.series.filled, start, stop + horizon),
            moved=lags.moved(self.series.filled, start, stop),
            start=start - begin,
            first=max(0, warmup_steps - (start - begin)),
            linear=not self.series.logarithmic,
        )


def _reach(array: np.ndarray, length: int, value: float) -> np.ndarray:
    """The array, continued to a length with a value. (np.pad takes eight times as long for a short one.)"""
    found = np.full((length, *array.shape[1:]), value, array.dtype)
    found[: len(array)] = array
    return found


def scale_augment(one: Window, factor: float) -> Window:
    """All movements larger or smaller by a factor, in learned units."""
    larger = {name: factor * getattr(one, name) for name in ("filled", "values", "lagged", "moved")}
    return replace(one, **larger)


def mixup(one: Window, other: Window, share: float) -> Window:
    """A series between two: `share` of the first, the rest of the other, in learned units. Both must have
    the same steps."""

    def between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return share * a + (1 - share) * b

    return Window(
        filled=between(one.filled, other.filled),
        values=between(one.values, other.values),
        known=between(one.known, other.known),
        past=between(one.past, other.past),
        lagged=between(one.lagged, other.lagged),
        moved=between(one.moved, other.moved),
        start=one.start,
        first=max(one.first, other.first),
        linear=one.linear,
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows, each from its left edge on, padded at the right; S the most steps, C the most steps of
    context.

    filled (B, S): float64; observed (B, S): bool, False where a gap was filled; linear (B,): bool; start
    (B,): where the context begins; length (B,): steps of context; future (B, C, H): float64, what came
    after each cutoff, NaN where that is unknown; known (B, C + H, K) and past (B, C, P): float32, from the
    start of the context on; lagged (B, C + H, G), moved (B, C, G): float64, NaN where unknown; cutoffs (M,):
    the steps of the context to learn from."""

    filled: Tensor
    observed: Tensor
    linear: Tensor
    start: Tensor
    length: Tensor
    future: Tensor
    known: Tensor
    past: Tensor
    lagged: Tensor
    moved: Tensor
    cutoffs: Tensor


def collate(windows: Sequence[Window], horizon: int, cutoffs: slice = slice(None)) -> Batch:
    """Pad windows to one shape. cutoffs: which steps of the context to learn from."""
    steps = max(len(one.filled) for one in windows)
    context = max(one.context for one in windows)
    ahead = [_reach(one.values[one.start + 1 :], context + horizon, np.nan) for one in windows]
    length = torch.tensor([one.context for one in windows])
    future = torch.from_numpy(np.stack(ahead)).unfold(1, horizon, 1)[:, :context]
    first = torch.tensor([one.first for one in windows])
    step = torch.arange(context)
    idle = (step < first[:, None]) | (step >= length[:, None])
    return Batch(
        filled=_stack([_reach(one.filled, steps, one.filled[-1]) for one in windows]),
        observed=_stack([~np.isnan(_reach(one.values[: len(one.filled)], steps, 0.0)) for one in windows]),
        linear=torch.tensor([one.linear for one in windows]),
        start=torch.tensor([one.start for one in windows]),
        length=length,
        future=future.masked_fill(idle[..., None], torch.nan),
        known=_stack([_reach(one.known, context + horizon, 0.0) for one in windows]).float(),
        past=_stack([_reach(one.past, context, 0.0) for one in windows]).float(),
        lagged=_stack([_reach(one.lagged, context + horizon, np.nan) for one in windows]),
        moved=_stack([_reach(one.moved, context, np.nan) for one in windows]),
        cutoffs=step[cutoffs],
    )


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))
