"""The training batches of a panel, made afresh in every epoch.

Short series are one window each; long ones are cut at places that differ from epoch to epoch. Two things
keep a network from learning the series by heart: a window often begins late, as if what lies before were
unknown, and it is often mixed with another series,
and its movements are made larger or smaller.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cellwise.tasks.forecasting.covariates import Covariates
from cellwise.tasks.forecasting.lags import Lags
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.series import prepare
from cellwise.tasks.forecasting.stretches import (
    CONTEXT,
    NO_LAGS,
    Batch,
    PreparedSeries,
    Window,
    collate,
    history_steps,
    mixup,
    scale_augment,
)

__all__ = ["Batch", "WindowSampler", "plan"]

BATCHES = 24  # about so many at least make an epoch: few series are walked several times
SMALLEST_BATCH = 4
EVERY = 2  # neighbouring cutoffs teach nearly the same: half of them in turn are learned from
LATE_SHARE = 0.8  # of the windows begin late
AMPLITUDES = 0.5  # standard deviation of the logarithm of the factor
MIXED_SHARE = 0.8  # of the windows are mixed with another series
SHORTEST_MIX = 8  # steps that two series must have in common


@dataclass(frozen=True)
class Slice:
    """A place in a series: history [begin, start), context [start, stop)."""

    series: int
    begin: int
    start: int
    stop: int


class WindowSampler:
    """The training batches of a panel. Series without two observations are left out.

    batch_size: windows per batch, fewer where there is little data; seed: of order, cuts and mixing;
    augment: whether windows begin late and are mixed; lags: what else each shows.
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
        lags: Lags = NO_LAGS,
    ) -> None:
        self.horizon, self.seed, self.augment, self.lags = horizon, seed, augment, lags
        self.season_length = panel.frequency.season_length
        self.prepared: list[PreparedSeries] = []
        for y, known, past in zip(panel.y, panel.known, panel.past, strict=True):
            if np.count_nonzero(~np.isnan(y)) >= 2:
                series = prepare(y, self.season_length, typical_step)
                first = series.start
                self.prepared.append(
                    PreparedSeries(series, covariates.known(known[first:]), covariates.past(past[first:]))
                )
        self._kinds = {
            kind: np.array([i for i, one in enumerate(self.prepared) if one.series.logarithmic == kind])
            for kind in (True, False)
        }
        self.batch_size, self.rounds, self._batches = plan([len(one) for one in self.prepared], batch_size)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._batches

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one epoch: a pure function of (seed, number), so that a resumed run equals one
        that went through.
        """
        generator = np.random.default_rng([self.seed, number])
        for _ in range(self.rounds):
            slices = [part for index in range(len(self.prepared)) for part in self._slices(index, generator)]
            order = generator.permutation(len(slices))
            for begin in range(0, len(order), self.batch_size):
                chosen = order[begin : begin + self.batch_size]
                windows = [self._window(slices[i], generator) for i in chosen]
                yield collate(windows, self.horizon, slice(int(generator.integers(EVERY)), None, EVERY))

    def _slices(self, index: int, generator: np.random.Generator) -> Iterator[Slice]:
        length, history = len(self.prepared[index]), history_steps(self.season_length)
        for start, stop in _cut(length, generator):
            begin = max(0, start - history)
            if self.augment and generator.random() < LATE_SHARE:
                begin = int(
                    generator.integers(begin, max(begin, start, length // 2 if length <= CONTEXT else 0) + 1)
                )
            yield Slice(index, begin, max(begin, start), stop)

    def _window(self, part: Slice, generator: np.random.Generator) -> Window:
        window = self._cut_out(part)
        if not self.augment:
            return window
        if generator.random() < MIXED_SHARE:
            window = self._mixed(part, window, generator)
        return scale_augment(window, math.exp(AMPLITUDES * generator.normal()))

    def _mixed(self, part: Slice, window: Window, generator: np.random.Generator) -> Window:
        """With another series of the same kind; series that end together are thought to run together. With itself
        some whole seasons earlier or later, so that a single long series is not learned by heart either."""
        other = int(generator.choice(self._kinds[not window.linear]))
        share = float(generator.beta(0.5, 0.5))
        length = len(self.prepared[part.series])
        shift = len(self.prepared[other]) - length
        if other == part.series:
            season = max(1, self.season_length)
            shift = season * int(
                generator.integers(-(part.start // season), (length - part.stop) // season + 1)
            )
        begin = max(part.begin, -shift)
        start = max(part.start, begin)
        if part.stop - start < SHORTEST_MIX:
            return window
        one = self._cut_out(Slice(part.series, begin, start, part.stop))
        return mixup(one, self._cut_out(Slice(other, begin + shift, start + shift, part.stop + shift)), share)

    def _cut_out(self, part: Slice) -> Window:
        """The window of a slice. A cutoff that sees less than a season teaches little; short series have
        no choice.
        """
        prepared = self.prepared[part.series]
        warmup_steps = min(max(self.season_length, 4), (len(prepared) - part.begin) // 3)
        return prepared.cut(part.begin, part.start, part.stop, self.horizon, warmup_steps, self.lags)


def plan(lengths: Sequence[int], batch_size: int) -> tuple[int, int, int]:
    """For series of these lengths: windows in a batch, how often an epoch walks each series, batches in an epoch.

    Little data is learned in smaller batches rather than walked many times: faster, and less by heart."""
    once = sum(map(_num_slices, lengths))
    size = min(batch_size, max(SMALLEST_BATCH, 2 * once // BATCHES))
    batches = math.ceil(once / size)
    rounds = max(1, round(BATCHES / batches)) if once else 0
    return size, rounds, rounds * batches


def _num_slices(length: int) -> int:
    return 1 if length <= CONTEXT else math.ceil(length / CONTEXT) + 1


def _cut(length: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """Cut [0, length) into slices of at most CONTEXT steps, at places that differ every time."""
    if length <= CONTEXT:
        return [(0, length)]
    whole = _num_slices(length) - 1
    size = length / whole
    offset = generator.uniform(1, size - 1)
    edges = [0, *(round(offset + k * size) for k in range(whole)), length]
    return list(pairwise(edges))
