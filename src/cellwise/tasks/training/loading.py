"""Loading an estimator from a run folder, nothing in which is trusted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from cellwise.cells import Cell
from cellwise.cells.stored import StoredCell, StoredCellError, known_cell, restore_cell
from cellwise.errors import CellwiseError
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training.run_folder import CONFIG, RunFolder

__all__ = ["cell_of_run", "check_loaded", "load_network"]

_LOG = logging.getLogger(__name__)
Network = TypeVar("Network", bound=nn.Module)


def cell_of_run(run: RunFolder, config: Mapping[str, Any], name: object) -> Cell:
    """The cell that a run was trained with, from the equations in config.json.

    Runs of earlier versions hold only its name. RunFolderError if the name is unknown or the equations invalid."""
    if config.get("format", 1) == 1 and isinstance(name, str):
        by_name = known_cell(name)
        if by_name is None:
            raise RunFolderError(
                f"the run in {run.path}, of an earlier version, holds the name of its cell only, and no cell is called "
                f"{name!r:.60} here; make its class known first with cellwise.cells.register"
            )
        return by_name
    try:
        cell = restore_cell(config["cell"])
    except StoredCellError as error:
        raise run.damaged(f"in {CONFIG} {error}") from error
    if cell.name != name:
        raise run.damaged(f"{CONFIG} names one cell and holds the equations of another")
    if isinstance(cell, StoredCell):
        known = "is not registered here" if known_cell(name) is None else "has other equations here"
        _LOG.warning("the cell '%s' %s; the equations kept in %s are used", cell.name, known, run.path)
    return cell


def check_loaded(run: RunFolder, check: Callable[[], None]) -> None:
    """Run an estimator's check of its settings; report what it refuses as damage."""
    try:
        check()
    except RunFolderError:
        raise
    except CellwiseError as error:
        raise run.damaged(f"in {CONFIG} {error}") from error


def load_network(
    run: RunFolder, build: Callable[[], Network], layers: int, weights: Mapping[str, torch.Tensor], name: str
) -> Network:
    """A network with the weights of the file `name`. Uses no more memory than those, whatever sizes the settings
    claim."""
    if layers > len(weights):
        raise run.damaged(f"{name} holds {len(weights)} weights, too few for {layers} layers")
    with torch.device("meta"):
        network = build()
    run.load_weights(network, weights, name)
    return network.eval()
