"""What a fitted forecaster looks at, put together for a report, a table or a command."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.frames import FrameSchema, Table
from cellwise.tasks.forecasting.influence import (
    Contributions,
    Group,
    Growth,
    Lags,
    contributions,
    error_growth,
    groups_of,
    past_influence,
)
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.postprocessing import Postprocessing
from cellwise.tasks.forecasting.what_if import Change, Forecasting, WhatIf, what_if
from cellwise.tasks.training.loop import torch_threads

__all__ = ["Fitted", "Looks", "ahead_of", "influence_frame", "looks_of", "suggested_what_if", "suggestion"]

MOST_SERIES = 8
SHORTEST = 2  # values before a forecast that can be looked into


class Fitted(Forecasting, Protocol):
    """A forecaster that has learned."""

    horizon: int
    threads: int
    seed: int
    table_: Table
    calendar_: tuple[str, ...]
    network_: ForecastNetwork
    measured_: ForecastNetwork
    _postprocessing: Postprocessing

    @property
    def backtest_(self) -> Backtest | None:
        """Forecasts of what was held out, beside the truth."""


@dataclass(frozen=True, eq=False)
class Looks:
    """growth and lags: over the held-out windows, empty where there are none. parts: of a forecast of `panel`, which
    has the calendar; None where a series is too short. is_future: whether that forecast lies after the data."""

    groups: tuple[Group, ...]
    growth: tuple[Growth, ...]
    lags: tuple[Lags, ...]
    parts: Contributions | None
    is_future: bool

    @property
    def rows(self) -> list[tuple[str, str, float, float]]:
        """What, its kind, how much the error grows without it, its share in a forecast; the largest share first."""
        grown = {each.group.name: each.percent for each in self.growth}
        if self.parts is None:
            return [(g.name, g.kind, grown.get(g.name, np.nan), np.nan) for g in self.groups]
        found = zip(self.parts.names, self.parts.kinds, self.parts.shares, strict=True)
        rows = [(name, kind, grown.get(name, np.nan), float(share)) for name, kind, share in found]
        return sorted(rows, key=lambda row: -row[3])


def looks_of(forecaster: Fitted, table: Table, measured: bool) -> Looks:
    """What the network's forecasts of a table rest on. measured: whether to look at the windows that were held out as
    well, by the network that had not learned them."""
    backtest = forecaster.backtest_ if measured else None
    ahead, is_future = ahead_of(table.panel, forecaster.horizon)
    growth: tuple[Growth, ...] = ()
    lags: tuple[Lags, ...] = ()
    parts = None
    with torch_threads(forecaster.threads):
        groups = groups_of(
            with_calendar(table.panel.select([0]), forecaster.calendar_, 0), forecaster.calendar_
        )
        if backtest is not None:
            growth = error_growth(forecaster.measured_, backtest, groups, forecaster.seed)
            lags = past_influence(forecaster.measured_, backtest)
        if ahead is not None:
            panel = with_calendar(ahead, forecaster.calendar_, forecaster.horizon)
            parts = contributions(forecaster.network_, panel, groups, forecaster.horizon, forecaster.seed)
    return Looks(groups, growth, lags, parts, is_future)


def ahead_of(panel: Panel, horizon: int, most: int = MOST_SERIES) -> tuple[Panel | None, bool]:
    """Some series to forecast, evenly chosen, without calendar features; and whether the forecast lies after the data.

    Where covariates known in advance end too soon, the last steps that they know are forecast. None if no series is
    long enough."""
    chosen = np.unique(np.linspace(0, len(panel) - 1, min(len(panel), most)).round().astype(int))
    some = panel.select(chosen.tolist())
    if not panel.known_names or all(
        len(k) >= len(y) + horizon for k, y in zip(some.known, some.y, strict=True)
    ):
        long = [i for i, y in enumerate(some.y) if np.count_nonzero(~np.isnan(y)) >= SHORTEST]
        return (some.select(long) if long else None), True
    ends = [min(len(y), len(k) - horizon) for k, y in zip(some.known, some.y, strict=True)]
    long = [
        i for i, (end, y) in enumerate(zip(ends, some.y, strict=True))
        if end > 0 and np.count_nonzero(~np.isnan(y[:end])) >= SHORTEST
    ]  # fmt: skip
    if not long:
        return None, False
    return some.select(long).cut([ends[i] for i in long], reach=horizon), False


def suggested_what_if(forecaster: Fitted, looks: Looks) -> tuple[WhatIf, bool] | None:
    """A what-if that shows most, with the covariate known in advance without which the error grows most. And whether it
    lies after the data.

    None where nothing is known in advance, or nothing can be forecast."""
    table = forecaster.table_
    own = {group.name for group in looks.groups if group.kind == "known"}
    order = [row[0] for row in sorted(looks.rows, key=lambda row: -np.nan_to_num(row[2])) if row[0] in own]
    ahead, is_future = ahead_of(table.panel, forecaster.horizon)
    if not order or ahead is None:
        return None
    name = order[0]
    change, words, series = suggestion(forecaster, ahead, name)
    one = replace(table, panel=ahead.select([series]))
    return what_if(forecaster, one, {name: change}, forecaster.horizon, words), is_future


def suggestion(forecaster: Fitted, ahead: Panel, name: str) -> tuple[Change, str, int]:
    """A change of a covariate known in advance, in a panel without calendar: a flag taken away (or set, where it is
    never on), a number raised by its standard deviation. And how one says it, and the series that it changes most."""
    place = ahead.known_names.index(name)
    future = np.array(
        [k[len(y) : len(y) + forecaster.horizon, place] for k, y in zip(ahead.known, ahead.y, strict=True)]
    )
    whole = np.concatenate([known[:, place] for known in forecaster.table_.panel.known])
    if np.isin(whole[~np.isnan(whole)], (0.0, 1.0)).all():
        if (future == 1).any():
            return 0.0, f"without {name}", int((future == 1).sum(axis=1).argmax())
        return 1.0, f"with {name} throughout", 0
    size = forecaster.network_.config.covariates.known_size[len(forecaster.calendar_) + place]
    return (lambda values: values + size), f"with {name} higher by {size:.3g}", 0


def influence_frame(looks: Looks, backend: str) -> Any:
    """`Looks.rows` as a frame of polars, pandas or pyarrow."""
    what, kind, growth, share = zip(*looks.rows, strict=True) if looks.rows else ((), (), (), ())
    return FrameSchema(backend=backend).frame(
        {
            "what": np.array(what, dtype=object),
            "kind": np.array(kind, dtype=object),
            "error_growth": np.array(growth, dtype=np.float64),
            "share": np.array(share, dtype=np.float64),
        }
    )
