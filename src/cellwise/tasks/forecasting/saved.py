"""What a run folder says of a forecaster, believed only as far as it can be proved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cellwise.cells import Cell
from cellwise.tasks.forecasting.calendar import check_calendar
from cellwise.tasks.forecasting.config import NetworkConfig
from cellwise.tasks.forecasting.frames import Table
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.store import fingerprint, read_table_back
from cellwise.tasks.training.loading import load_network
from cellwise.tasks.training.run_folder import BEST, RunFolder

__all__ = ["Saved", "read_saved"]


@dataclass(frozen=True, eq=False)
class Saved:
    """The data, the names of its calendar features, the trained network, and what was noticed."""

    table: Table
    calendar: tuple[str, ...]
    network: ForecastNetwork
    notes: tuple[str, ...]


def read_saved(run: RunFolder, config: Mapping[str, Any], options: Mapping[str, Any], cell: Cell) -> Saved:
    """What a run folder holds, whose network must be the one that these `options`, its settings, ask for.

    Raises RunFolderError, or ValueError, KeyError, ... where config.json is not what it was written as."""
    network_config = replace(NetworkConfig.from_dict(config["network"]), cell=cell)
    if replace(network_config, **options) != network_config:
        raise run.damaged("config.json has a network that is not that of its settings")
    calendar = config["calendar"]
    check_calendar(calendar)
    summary = run.summary() if run.is_finished else None
    table, best = read_table_back(run), run.read_tensors(BEST)
    if config.get("format", 1) > 1 and config["data"] != fingerprint(table.panel, table.style):
        raise run.damaged("data.safetensors holds other data than config.json says")
    network_config.check_fits(table.panel, len(calendar))
    layers = network_config.members * network_config.num_layers
    network = load_network(run, lambda: ForecastNetwork(network_config), layers, best.tensors)
    if summary is None:
        so_far = f"the run is not finished; these are its weights of epoch {best.about.get('epoch')}, the best so far"
        return Saved(table, tuple(calendar), network, (*table.notes, so_far))
    return Saved(table, tuple(calendar), network, tuple(str(note) for note in summary.get("notes", ())))
