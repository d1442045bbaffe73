"""The training batches of a panel, made afresh in every epoch.

Short series are one stretch each; long ones are cut at places that differ from epoch to epoch. Two things
keep a network from learning the series by heart: a stretch often begins late, as if what lies before were
unknown, and it is often mixed with another series,
and its movements are made larger or smaller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cellwise.tasks.forecasting.covariates import Covariates
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.series import prepare
from cellwise.tasks.forecasting.stretches import (
    CONTEXT,
    Batch,
    Source,
    Stretch,
    amplify,
    collate,
    history_steps,
    mix,
)

__all__ = ["Batch", "Windows"]

BATCHES = 24  # about so many at least make an epoch: few series are walked several times
SMALLEST_BATCH = 4
EVERY = 2  # neighbouring cutoffs teach nearly the same: half of them in turn are learned from
LATE_SHARE = 0.8  # of the stretches begin late
AMPLITUDES = 0.5  # standard deviation of the logarithm of the factor
MIXED_SHARE = 0.8  # of the stretches are mixed with another series
SHORTEST_MIX = 8  # steps that two series must have in common


@dataclass(frozen=True)
class Piece:
    """A place in a series: history [begin, start), context [start, stop)."""

    series: int
    begin: int
    start: int
    stop: int


class Windows:
    """The training batches of a panel. Series without two observations are left out.

    batch_size: stretches per batch, fewer where there is little data; seed: of order, cuts and mixing;
    augment: whether stretches begin late and are mixed.
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
        augment: bool = True,
    ) -> None:
        self.horizon, self.seed, self.augment = horizon, seed, augment
        self.season_length = panel.frequency.season_length
        self.sources: list[Source] = []
        for y, known, past in zip(panel.y, panel.known, panel.past, strict=True):
            if np.count_nonzero(~np.isnan(y)) >= 2:
                series = prepare(y, self.season_length, typical_step)
                first = series.start
                self.sources.append(
                    Source(series, covariates.known(known[first:]), covariates.past(past[first:]))
                )
        self._kinds = {
            kind: np.array([i for i, one in enumerate(self.sources) if one.series.logarithmic == kind])
            for kind in (True, False)
        }
        self._once = sum(_num_pieces(len(one)) for one in self.sources)
        # Little data is learned in smaller batches rather than walked many times: faster, and less by heart.
        self.batch_size = min(batch_size, max(SMALLEST_BATCH, 2 * self._once // BATCHES))
        self.rounds = max(1, round(BATCHES / math.ceil(self._once / self.batch_size))) if self._once else 0

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.rounds * math.ceil(self._once / self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch: a pure function of (seed, number), so that a resumed run equals one
        that went through.
        """
        generator = np.random.default_rng([self.seed, number])
        for _ in range(self.rounds):
            pieces = [piece for index in range(len(self.sources)) for piece in self._pieces(index, generator)]
            order = generator.permutation(len(pieces))
            for begin in range(0, len(order), self.batch_size):
                chosen = order[begin : begin + self.batch_size]
                stretches = [self._stretch(pieces[i], generator) for i in chosen]
                yield collate(stretches, self.horizon, slice(int(generator.integers(EVERY)), None, EVERY))

    def _pieces(self, index: int, generator: np.random.Generator) -> Iterator[Piece]:
        length, history = len(self.sources[index]), history_steps(self.season_length)
        for start, stop in _cut(length, generator):
            begin = max(0, start - history)
            if self.augment and generator.random() < LATE_SHARE:
                begin = int(
                    generator.integers(begin, max(begin, start, length // 2 if length <= CONTEXT else 0) + 1)
                )
            yield Piece(index, begin, max(begin, start), stop)

    def _stretch(self, piece: Piece, generator: np.random.Generator) -> Stretch:
        stretch = self._cut_out(piece)
        if not self.augment:
            return stretch
        if generator.random() < MIXED_SHARE:
            stretch = self._mixed(piece, stretch, generator)
        return amplify(stretch, math.exp(AMPLITUDES * generator.normal()))

    def _mixed(self, piece: Piece, stretch: Stretch, generator: np.random.Generator) -> Stretch:
        """With another series of the same kind; series that end together are thought to run together."""
        other = int(generator.choice(self._kinds[not stretch.linear]))
        share = float(generator.beta(0.5, 0.5))
        shift = len(self.sources[other]) - len(self.sources[piece.series])
        begin = max(piece.begin, -shift)
        start = max(piece.start, begin)
        if piece.stop - start < SHORTEST_MIX:
            return stretch
        one = self._cut_out(Piece(piece.series, begin, start, piece.stop))
        return mix(one, self._cut_out(Piece(other, begin + shift, start + shift, piece.stop + shift)), share)

    def _cut_out(self, piece: Piece) -> Stretch:
        """The stretch of a piece. A cutoff that sees less than a season teaches little; short series have
        no choice.
        """
        source = self.sources[piece.series]
        unripe = min(max(self.season_length, 4), (len(source) - piece.begin) // 3)
        return source.cut(piece.begin, piece.start, piece.stop, self.horizon, unripe)


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
