"""The settings of a forecast's report, with what the forecaster chose where nothing was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from cellwise.tasks.common_options import NETWORK, TRAINING
from cellwise.tasks.forecasting.data import ForecastData
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.options import TestWindows
from cellwise.tasks.options import options_of
from cellwise.tasks.report.settings import SettingGroup, setting_groups
from cellwise.tasks.training.history import History

__all__ = ["settings_of"]


class Fitted(Protocol):
    """A forecaster that has learned."""

    network_: ForecastNetwork
    trained_: History | None
    refitted_: History | None
    _data: ForecastData
    _fitted_how: dict[str, Any]

    @property
    def cell_name(self) -> str:
        """The names of its cells."""

    def get_params(self) -> dict[str, Any]:
        """Its options by name."""


def settings_of(forecaster: Fitted) -> tuple[SettingGroup, ...]:
    """All options in groups, with what the forecaster chose, and what came of them."""
    options = (*options_of(type(forecaster)), *options_of(TestWindows))
    values = {**forecaster.get_params(), **forecaster._fitted_how, "cell": forecaster.cell_name}
    return setting_groups(options, values, _chosen(forecaster), "forecast", _results(forecaster))


def _chosen(forecaster: Fitted) -> dict[str, str]:
    """What the forecaster took for each option that was left to it."""
    table, split, trained = forecaster._data.table, forecaster._data.split, forecaster.trained_
    frequency = table.panel.frequency
    chosen = {
        "freq": f"{frequency.name} (one every {frequency.words})",
        "season_length": _steps(frequency.season_length),
        "validation": _windows(split.validation),
        "cutoffs": _windows(split.test),
    }
    if table.schema.time_format is not None:
        chosen["date_format"] = table.schema.time_format
    if trained is not None:
        chosen["epochs"] = f"{len(trained.epochs)}"
    return chosen


def _results(forecaster: Fitted) -> dict[str, Mapping[str, str]]:
    network, trained = forecaster.network_, forecaster.trained_
    weights = sum(parameter.numel() for parameter in network.parameters())
    found = {NETWORK: {"input length": f"up to {_steps(network.context_length)}", "weights": f"{weights:,}"}}
    if trained is not None:
        kept = f", kept that of epoch {trained.best.epoch}" if trained.watch.keeps_best else ""
        found[TRAINING] = {"epochs run": f"{len(trained.epochs)}{kept}"}
    if forecaster.refitted_ is not None:
        run = found.setdefault(TRAINING, {})
        run["epochs on all data"] = f"{len(forecaster.refitted_.epochs)}"
    return dict(found)


def _steps(count: int) -> str:
    return f"{count:,} step{'s' * (count != 1)}"


def _windows(cutoffs: np.ndarray) -> str:
    """How many windows each series has at most."""
    most = int((cutoffs >= 0).sum(axis=1).max()) if cutoffs.size else 0
    words = f"{most} window{'s' * (most != 1)}"
    return "none" if not most else f"{words} of each series" if len(cutoffs) > 1 else words
