"""Batches of segments: stretches of series with every cutoff in them, so that one pass of the network
learns from all.

A segment is up to `CONTEXT` steps that the recurrent layer walks, the history before them that only the
scaling looks at, and the horizon after them. Short series are one segment each; long ones are cut afresh in
every epoch at a random place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.forecasting.covariates import Covariates
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.series import Series, prepare

__all__ = ["CONTEXT", "Batch", "Segment", "Windows", "collate", "history_steps"]

CONTEXT = 128  # steps that the recurrent layer walks
HISTORY_SEASONS = 12  # before them, for the season and the slope
MIN_BATCHES = 24  # in an epoch; few series are walked several times


@dataclass(frozen=True, eq=False)
class Batch:
    """B segments, each from its left edge on, padded at the right.

    filled (B, S): float64, history and context in learned units, gaps and padding filled; observed (B, S):
    bool; linear (B,): bool; start (B,): where the context begins; length (B,): steps of context, at least 1
    and at most C; first (B,): the first cutoff within the context that counts; future (B, C, H): float64,
    what came after each cutoff, NaN where unknown; known (B, C + H, K) and past (B, C, P): float32,
    standardised, from the start of the context on.
    """

    filled: Tensor
    observed: Tensor
    linear: Tensor
    start: Tensor
    length: Tensor
    first: Tensor
    future: Tensor
    known: Tensor
    past: Tensor


@dataclass(frozen=True)
class Segment:
    """Steps [start, stop) of a series are context, those before it history."""

    series: int
    start: int
    stop: int


def history_steps(season_length: int) -> int:
    """How much of the past before the context the scaling may use."""
    return HISTORY_SEASONS * season_length


def collate(
    segments: Sequence[Segment],
    series: Sequence[Series],
    known: Sequence[np.ndarray],
    past: Sequence[np.ndarray],
    season_length: int,
    horizon: int,
) -> Batch:
    """Cut the segments out and pad them to one shape. known and past (T, K), (T, P) begin with their
    series' first observation.
    """
    begins = [max(0, piece.start - history_steps(season_length)) for piece in segments]
    steps = max(piece.stop - begin for piece, begin in zip(segments, begins, strict=True))
    context = max(piece.stop - piece.start for piece in segments)
    shape = len(segments), steps
    filled, observed = np.zeros(shape), np.ones(shape, dtype=bool)
    ahead = np.full((len(segments), context + horizon), np.nan)  # from one step after the start on
    known_part = np.zeros((len(segments), context + horizon, known[0].shape[1]), dtype=np.float32)
    past_part = np.zeros((len(segments), context, past[0].shape[1]), dtype=np.float32)
    for row, (piece, begin) in enumerate(zip(segments, begins, strict=True)):
        one, size = series[piece.series], piece.stop - begin
        filled[row, :size] = one.filled[begin : piece.stop]
        filled[row, size:] = one.filled[piece.stop - 1]
        observed[row, :size] = ~np.isnan(one.values[begin : piece.stop])
        length = piece.stop - piece.start
        _copy(ahead[row, : length + horizon - 1], one.values[piece.start + 1 :])
        _copy(known_part[row, : length + horizon], known[piece.series][piece.start :])
        _copy(past_part[row, :length], past[piece.series][piece.start : piece.stop])
    starts = np.array([piece.start - begin for piece, begin in zip(segments, begins, strict=True)])
    lengths = np.array([piece.stop - piece.start for piece in segments])
    first = [
        _first_cutoff(len(series[piece.series].values), season_length) - piece.start for piece in segments
    ]
    future = torch.from_numpy(ahead).unfold(1, horizon, 1)[:, :context]
    beyond = torch.arange(context) >= torch.from_numpy(lengths)[:, None]
    return Batch(
        filled=torch.from_numpy(filled),
        observed=torch.from_numpy(observed),
        linear=torch.tensor([not series[piece.series].logarithmic for piece in segments]),
        start=torch.from_numpy(starts),
        length=torch.from_numpy(lengths),
        first=torch.tensor(first).clamp(min=0),
        future=future.masked_fill(beyond[..., None], torch.nan),
        known=torch.from_numpy(known_part),
        past=torch.from_numpy(past_part),
    )


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    """As much of source as fits into, and is there for, target."""
    size = min(len(target), len(source))
    target[:size] = source[:size]


def _first_cutoff(length: int, season_length: int) -> int:
    """Cutoffs before this one see too little to teach anything: a season, but no more than a third of the
    series.
    """
    return min(max(season_length, 4), length // 3)


class Windows:
    """The training batches of a panel.

    Series without two observations are left out. Features are made in the network, from the same slices
    that a forecast sees.
    """

    def __init__(
        self,
        panel: Panel,
        *,
        horizon: int,
        covariates: Covariates,
        typical_step: float,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.horizon, self.batch_size, self.seed = horizon, batch_size, seed
        self.season_length = panel.frequency.season_length
        chosen = [i for i, y in enumerate(panel.y) if np.count_nonzero(~np.isnan(y)) >= 2]
        self.series = [prepare(panel.y[i], self.season_length, typical_step) for i in chosen]
        starts = [one.start for one in self.series]
        self.known = [covariates.known(panel.known[i][s:]) for i, s in zip(chosen, starts, strict=True)]
        self.past = [covariates.past(panel.past[i][s:]) for i, s in zip(chosen, starts, strict=True)]
        self.once = sum(_num_pieces(len(one.values)) for one in self.series)
        self.rounds = math.ceil(MIN_BATCHES / math.ceil(self.once / batch_size)) if self.once else 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.rounds * math.ceil(self.once / self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch: a pure function of (seed, number), so that a resumed run equals one
        that went through.
        """
        generator = np.random.default_rng([self.seed, number])
        for _ in range(self.rounds):
            segments = [
                Segment(index, start, stop)
                for index, one in enumerate(self.series)
                for start, stop in _cut(len(one.values), generator)
            ]
            order = generator.permutation(len(segments))
            for begin in range(0, len(order), self.batch_size):
                chosen = [segments[i] for i in order[begin : begin + self.batch_size]]
                yield collate(chosen, self.series, self.known, self.past, self.season_length, self.horizon)


def _num_pieces(length: int) -> int:
    return 1 if length <= CONTEXT else math.ceil(length / CONTEXT) + 1


def _cut(length: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Cut [0, length) into pieces of at most CONTEXT steps, at places that differ every time."""
    if length <= CONTEXT:
        return [(0, length)]
    whole = _num_pieces(length) - 1
    size = length / whole
    offset = generator.uniform(1, size - 1)
    edges = [0, *(round(offset + k * size) for k in range(whole)), length]
    return list(pairwise(edges))
