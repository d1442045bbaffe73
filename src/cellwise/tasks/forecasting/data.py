"""What a forecaster keeps of its data: read from a person's table, or back from a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cellwise.tasks.estimator import Stored
from cellwise.tasks.forecasting.calendar import calendar_names, check_calendar, with_calendar
from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.frames import Table
from cellwise.tasks.forecasting.objective import training_part
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.splits import Split, former_split, restore_split, split, split_tensors
from cellwise.tasks.forecasting.store import fingerprint, read_table_back, table_tensors
from cellwise.tasks.training.run_folder import CONFIG, DATA, RunFolder

__all__ = ["ForecastData", "prepare_data", "restore_data", "store_data"]


@dataclass(frozen=True, eq=False)
class ForecastData:
    """The table, the names of its calendar features, what the network is built from, and what was held out."""

    table: Table
    calendar: tuple[str, ...]
    config: NetworkConfig
    split: Split


def prepare_data(
    table: Table, network: Mapping[str, Any], *, cutoffs: int | None, step: int, validation: int | None
) -> tuple[ForecastData, Panel]:
    """A table ready to be learned from, and its panel with calendar features.

    network: options of `NetworkConfig`. Raises SeriesTooShortError if no series is long enough."""
    horizon = network["horizon"]
    calendar = calendar_names(table.panel.frequency, table.panel.times)
    panel = with_calendar(table.panel, calendar, horizon)
    parts = split(panel, horizon, cutoffs=cutoffs, step=step, validation=validation)
    config = NetworkConfig.for_panel(training_part(panel, parts, horizon), **network)
    return ForecastData(table, calendar, config, parts), panel


def store_data(data: ForecastData) -> Stored:
    """The data as a run folder holds it."""
    tensors, about = table_tensors(data.table)
    config = {"network": data.config.to_dict(), "calendar": data.calendar}
    tensors |= split_tensors(data.split)
    return Stored(fingerprint(data.table.panel, data.table.schema), tensors, about, config)


def restore_data(
    run: RunFolder,
    stored: Mapping[str, Any],
    network: Mapping[str, Any],
    *,
    cutoffs: int | None,
    step: int,
    validation: int | None,
) -> ForecastData:
    """What a run folder holds, whose network must be the one that the options `network`, its settings, ask for.

    Raises RunFolderError, or ValueError, KeyError, ... where config.json is not what it was written as."""
    config = replace(NetworkConfig.from_dict(stored["network"]), cell=network["cell"])
    if replace(config, **network) != config:
        raise run.damaged(f"{CONFIG} has a network that is not that of its settings")
    calendar = stored["calendar"]
    check_calendar(calendar)
    saved = run.read_tensors(DATA)
    table = read_table_back(run, saved)
    config.check_fits(table.panel, len(calendar))
    parts = run.guarded(
        f"{DATA} does not hold the parts of its series",
        lambda: restore_split(saved.tensors, table.panel.lengths),
    )
    if parts is None:
        parts = former_split(
            table.panel, config.horizon, cutoffs=cutoffs or 0, step=step, validation=validation
        )
    return ForecastData(table, tuple(calendar), config, parts)
