"""Loading an estimator from a run folder, nothing in which is trusted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from cellwise.cells import Cell
from cellwise.cells.stored import StoredCell, StoredCellError, known_cell, restore_cell, store_cell
from cellwise.errors import CellwiseError
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.member_cells import joined_name
from cellwise.tasks.training.run_folder import CONFIG, RunFolder

__all__ = ["cells_of_run", "check_loaded", "load_network", "option_of", "store_cells"]

_LOG = logging.getLogger(__name__)
Network = TypeVar("Network", bound=nn.Module)
_SEVERAL = "cells"  # the key under which several cells are stored


def store_cells(cells: Sequence[Cell]) -> dict[str, Any]:
    """The equations of an estimator's cells as config.json holds them; one cell by itself, as it always was."""
    stored = [store_cell(each) for each in cells]
    return stored[0] if len(stored) == 1 else {_SEVERAL: stored}


def option_of(cells: tuple[Cell, ...]) -> Any:
    """What an estimator's option `cell` is for these cells: their name, where that is how they are known."""
    name = joined_name(cells)
    if all(known_cell(each.name) == each for each in cells) and (len(cells) == 1 or known_cell(name) is None):
        return name
    return cells[0] if len(cells) == 1 else cells


def cells_of_run(run: RunFolder, config: Mapping[str, Any], name: object) -> tuple[Cell, ...]:
    """The cells that a run was trained with, from the equations in config.json. `name`: theirs, in its settings.

    Runs of earlier versions hold only its name. RunFolderError if the name is unknown or the equations invalid."""
    if config.get("format", 1) == 1 and isinstance(name, str):
        by_name = known_cell(name)
        if by_name is None:
            raise RunFolderError(
                f"the run in {run.path}, of an earlier version, holds the name of its cell only, and no cell is called "
                f"{name!r:.60} here; make its class known first with cellwise.cells.register"
            )
        return (by_name,)
    stored = config["cell"]
    try:
        cells = tuple(restore_cell(each) for each in stored.get(_SEVERAL, [stored]))
    except StoredCellError as error:
        raise run.damaged(f"in {CONFIG} {error}") from error
    if joined_name(cells) != name:
        raise run.damaged(f"{CONFIG} names one cell and holds the equations of another")
    for cell in dict.fromkeys(cells):
        if isinstance(cell, StoredCell):
            known = known_cell(cell.name)
            # With options it is another cell, and nothing is amiss.
            other = "other equations or options" if known and known.options else "other equations"
            told = "is not registered here" if known is None else f"has {other} here"
            _LOG.warning("the cell '%s' %s; the equations kept in %s are used", cell.name, told, run.path)
    return cells


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
