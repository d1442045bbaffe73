"""What a forecast looks at: covariates, the calendar, the past.

Two measures, which need nothing but forecasts, so they hold for any network:

- How much the error grows when a covariate tells of another time: permutation importance (Breiman 2001; for any model:
  Fisher, Rudin and Dominici 2019). The columns are shifted in time, not shuffled row by row, so that they keep how
  they move.
- What each part adds to one forecast: Shapley values (Shapley 1953; for predictions: Lundberg and Lee 2017), whose sum
  is exactly the forecast less one that knows only the level.

Which part of the past matters is measured by taking it away: its values count as missing.

N series, W windows, H steps of the horizon, G groups. A panel here has its calendar features, as the network needs it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from cellwise.tasks.forecasting.backtest import Backtest, windows_at
from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.metrics import mean
from cellwise.tasks.forecasting.panel import Panel

__all__ = [
    "CALENDAR", "PAST", "Contributions", "Group", "Growth", "Lags", "Network", "contributions", "error_growth",
    "groups_of", "lag_blocks", "past_influence",
]  # fmt: skip

CALENDAR, PAST = "the calendar", "the series' own past"
MOST_WINDOWS = 96  # of a backtest are looked at, evenly chosen
REPEATS = 4  # shifts of each column
MOST_EXACT = 6  # groups: with more of them, orders are drawn instead of all being tried
ORDERS = 16
MOST_BLOCKS = 7


class Network(Protocol):
    """What is looked into: forecasts, how far back they look, and where the covariates have their centre."""

    @property
    def config(self) -> NetworkConfig:
        """Its configuration."""

    @property
    def context_length(self) -> int:
        """Steps at the end of a series that a forecast looks at."""

    def forecast(self, panel: Panel, horizon: int) -> np.ndarray:
        """Quantiles (N, horizon, Q)."""


@dataclass(frozen=True)
class Group:
    """Columns that tell one thing. kind: "known" or "past" for a covariate, "calendar"; columns: of `Panel.past` for a
    past covariate, else of `Panel.known`."""

    name: str
    kind: str
    columns: tuple[int, ...]


@dataclass(frozen=True)
class Growth:
    """How much the mean absolute error of the held-out windows grows without something, in percent: the mean, the least
    and the most over several shifts."""

    group: Group
    percent: float
    least: float
    most: float


@dataclass(frozen=True)
class Lags:
    """A block of the past, `first` to `last` steps back (1: the newest value). moved: how far the forecast moves when
    these values are missing, growth: how much the error grows; both in percent of the error."""

    first: int
    last: int
    moved: float
    growth: float


def groups_of(panel: Panel, calendar: Sequence[str]) -> tuple[Group, ...]:
    """The user's covariates, those known in advance first, then the calendar, which stands first in the panel."""
    count = len(calendar)
    known = [Group(name, "known", (i,)) for i, name in enumerate(panel.known_names) if i >= count]
    past = [Group(name, "past", (i,)) for i, name in enumerate(panel.past_names)]
    return (*known, *past, *([Group(CALENDAR, "calendar", tuple(range(count)))] if count else []))


# --- over the held-out windows -----------------------------------------------------------------------------------


def error_growth(
    network: Network, backtest: Backtest, groups: Sequence[Group], seed: int = 0
) -> tuple[Growth, ...]:
    """How much the error of a backtest's windows grows when each group tells of another time, the most first.

    network: that which made the forecasts of the backtest; backtest.panel: with the calendar."""
    windows = _Windows(network, backtest)
    base = windows.error(windows.panel)
    generator = np.random.default_rng(seed)
    found = []
    for group in groups:
        # evenly spread, with a little chance, so that no shift is a whole season by design
        shares = (np.arange(REPEATS) + generator.uniform(0.2, 0.8, REPEATS)) / REPEATS
        errors = [windows.error(_shifted(windows.panel, group, share, windows.reach)) for share in shares]
        percent = [100 * (error / base - 1) if base > 0 else 0.0 for error in errors]
        found.append(Growth(group, float(np.mean(percent)), min(percent), max(percent)))
    return tuple(sorted(found, key=lambda each: -each.percent))


def past_influence(network: Network, backtest: Backtest) -> tuple[Lags, ...]:
    """What the blocks of the past mean to the forecasts of a backtest's windows, the newest first."""
    windows = _Windows(network, backtest)
    before = windows.forecast(windows.panel)
    base = windows.mean_error(before)
    found = []
    for first, last in lag_blocks(
        min(int(windows.panel.lengths.max()) - 1, network.context_length), network.config.season_length
    ):
        after = windows.forecast(_hidden(windows.panel, first, last))
        moved = float(mean(mean(np.abs(after - before), axis=1) / windows.scale))
        if base > 0 and math.isfinite(moved):
            growth = 100 * (windows.mean_error(after) / base - 1)
            found.append(Lags(first, last, 100 * moved / base, growth))
    return tuple(found)


def lag_blocks(steps: int, season_length: int) -> list[tuple[int, int]]:
    """Blocks of the last `steps` steps, at most MOST_BLOCKS: the newest value, then whole seasons, each block twice as
    long as all before it.

    >>> lag_blocks(100, 7)
    [(1, 1), (2, 7), (8, 14), (15, 28), (29, 56), (57, 100)]
    >>> lag_blocks(5, 1)
    [(1, 1), (2, 2), (3, 4), (5, 5)]
    """
    ends = [1]
    step = season_length if 1 < season_length < steps else 2
    while ends[-1] < steps and len(ends) < MOST_BLOCKS - 1:
        ends.append(min(step, steps))
        step *= 2
    if ends[-1] < steps:
        ends.append(steps)
    return [(1 if i == 0 else ends[i - 1] + 1, end) for i, end in enumerate(ends)]


class _Windows:
    """Some windows of a backtest, their truth (W, H) and what their errors are measured in (W,)."""

    def __init__(self, network: Network, backtest: Backtest) -> None:
        self.network, self.horizon = network, backtest.horizon
        self.middle = list(backtest.quantiles).index(0.5)
        cut, truth, indices = windows_at(backtest.panel, backtest.cutoffs, backtest.horizon)
        chosen = np.unique(
            np.linspace(0, len(indices) - 1, min(len(indices), MOST_WINDOWS)).round().astype(int)
        )
        self.panel, self.truth = cut.select(chosen.tolist()), truth[chosen]
        scale = np.array([backtest.scale[i, c] for i, c in indices[chosen]])
        self.scale = scale if np.isfinite(scale).any() else np.ones(len(chosen))
        self.reach = network.context_length

    def forecast(self, panel: Panel) -> np.ndarray:
        """The median of each window, (W, H)."""
        return self.network.forecast(panel, self.horizon)[..., self.middle]

    def mean_error(self, forecast: np.ndarray) -> float:
        """Mean absolute error in units of each window's scale."""
        return float(mean(mean(np.abs(forecast - self.truth), axis=1) / self.scale))

    def error(self, panel: Panel) -> float:
        return self.mean_error(self.forecast(panel))


def _shifted(panel: Panel, group: Group, share: float, reach: int) -> Panel:
    """The group's columns tell of a time that lies a share of the series earlier, in a circle. Only what a forecast
    looks at is rewritten: `reach` steps of the past and all that follow."""

    def shift(column: np.ndarray, length: int) -> np.ndarray:
        begin, whole = max(0, length - reach), len(column)
        rows = (np.arange(begin, whole) - max(1, round(share * (whole - 1)))) % whole
        changed = column.copy()
        changed[begin:, group.columns] = column[rows][:, group.columns]
        return changed

    return _with_columns(panel, group, shift)


def _hidden(panel: Panel, first: int, last: int) -> Panel:
    """The values `first` to `last` steps back are missing; where nothing would be left, none are."""

    def hide(y: np.ndarray) -> np.ndarray:
        changed = y.copy()
        changed[max(0, len(y) - last) : max(0, len(y) - first + 1)] = np.nan
        return y if np.isnan(changed).all() else changed

    return replace(panel, y=tuple(hide(y) for y in panel.y))


# --- one forecast ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Contributions:
    """What each group adds to the median, in units of y: values (N, G, H), names (G,), the series' own past first.

    start + values.sum(1) == forecast, both (N, H). start is the forecast of a series that has only kept its level,
    with covariates and calendar at their mean."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    values: np.ndarray
    start: np.ndarray
    forecast: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """How much of all that is added, up or down, comes from each group, in percent: the mean over the series, (G,).
        NaN where nothing is added."""
        size = np.abs(self.values).sum(axis=2)
        total = size.sum(axis=1, keepdims=True)
        return 100 * mean(np.divide(size, total, out=np.full_like(size, np.nan), where=total > 0), axis=0)


def contributions(
    network: Network, panel: Panel, groups: Sequence[Group], horizon: int, seed: int = 0
) -> Contributions:
    """Shapley values of the series' own past and of each group, for the forecasts after the end of each series.

    A group that is absent stands at its mean over the training data; without its past a series has stayed at its level,
    the mean of its last season. With up to MOST_EXACT parts the values are exact, beyond that the mean over ORDERS
    orders, half of them the reverse of the others."""
    parts = len(groups) + 1
    value = _Values(network, panel, groups, horizon)
    total = np.zeros((len(panel), parts, horizon))
    orders = list(_orders(parts, seed))
    value.prepare({frozenset(order[:k]) for order in orders for k in range(parts + 1)})
    for order in orders:
        for k, part in enumerate(order):
            total[:, part] += value.of(frozenset(order[: k + 1])) - value.of(frozenset(order[:k]))
    return Contributions(
        (PAST, *(group.name for group in groups)),
        ("past", *(group.kind for group in groups)),
        total / len(orders),
        value.of(frozenset()),
        value.of(frozenset(range(parts))),
    )


def _orders(parts: int, seed: int) -> Iterator[tuple[int, ...]]:
    if parts <= MOST_EXACT:
        yield from itertools.permutations(range(parts))
        return
    generator = np.random.default_rng(seed)
    for _ in range(ORDERS // 2):
        order = tuple(int(i) for i in generator.permutation(parts))
        yield order
        yield order[::-1]


class _Values:
    """The medians (N, H) when only some parts are present. Part 0 is the past, part i the group i - 1."""

    def __init__(self, network: Network, panel: Panel, groups: Sequence[Group], horizon: int) -> None:
        self._network, self._panel, self._groups, self._horizon = network, panel, groups, horizon
        self._middle = len(network.config.quantiles) // 2
        self._known: dict[frozenset[int], np.ndarray] = {}

    def prepare(self, wanted: set[frozenset[int]]) -> None:
        """Forecast for each set of parts."""
        for present in sorted(wanted, key=sorted):
            made = self._network.forecast(self._without(present), self._horizon)
            self._known[present] = made[..., self._middle]

    def of(self, present: frozenset[int]) -> np.ndarray:
        return self._known[present]

    def _without(self, present: frozenset[int]) -> Panel:
        panel, config = self._panel, self._network.config
        if 0 not in present:
            panel = replace(panel, y=tuple(_level(y, config.season_length) for y in panel.y))
        for index, group in enumerate(self._groups, 1):
            if index not in present:
                covariates = config.covariates
                center = covariates.past_center if group.kind == "past" else covariates.known_center
                panel = _at_mean(panel, group, np.array(center), self._network.context_length)
        return panel


def _level(y: np.ndarray, season_length: int) -> np.ndarray:
    seen = y[~np.isnan(y)]
    return np.where(np.isnan(y), np.nan, seen[-max(1, season_length) :].mean())


def _at_mean(panel: Panel, group: Group, center: np.ndarray, reach: int) -> Panel:
    def rest(column: np.ndarray, length: int) -> np.ndarray:
        changed = column.copy()
        changed[max(0, length - reach) :, group.columns] = center[list(group.columns)]
        return changed

    return _with_columns(panel, group, rest)


def _with_columns(panel: Panel, group: Group, change: _Change) -> Panel:
    """The panel with other values of the covariates of a group's kind: `change` gets the columns, and the length of
    y."""
    own = panel.past if group.kind == "past" else panel.known
    made = tuple(change(column, len(y)) for column, y in zip(own, panel.y, strict=True))
    return replace(panel, past=made) if group.kind == "past" else replace(panel, known=made)


class _Change(Protocol):
    def __call__(self, column: np.ndarray, length: int) -> np.ndarray: ...
