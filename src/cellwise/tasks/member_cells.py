"""The cells of an estimator whose members may have different ones: `"gru+lstm"`, or a tuple of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cellwise import cells
from cellwise.cells import Cell
from cellwise.cells.stored import known_cell
from cellwise.errors import UnknownCellError
from cellwise.graph.units import HIDDEN
from cellwise.graph.widths import widths_of
from cellwise.tasks.errors import OptionError

__all__ = ["JOIN", "cells_of", "joined_name"]

JOIN = "+"  # between the names of several cells: a comma stands between the items of a list


def cells_of(value: Any) -> tuple[Cell, ...]:
    """The cells that an estimator's option `cell` names.

    value: the name, class or instance of a cell; several, in a tuple or list; or their names joined by "+".
    Raises UnknownCellError; OptionError for an empty tuple, and for a cell of several outputs or one that must be given
    values beside x; TypeError for what is no cell.

    >>> [each.name for each in cells_of("gru+lstm")], joined_name(cells_of(("lstm", "gru")))
    (['gru', 'lstm'], 'lstm+gru')
    """
    if isinstance(value, tuple | list):
        if not value:
            raise OptionError("cell is an empty list; name at least one cell")
        return tuple(cell for each in value for cell in cells_of(each))
    return tuple(map(_fit_for_a_task, _named(value)))


def _fit_for_a_task(cell: Cell) -> Cell:
    if not isinstance(cell.inputs, Mapping) and cell.inputs:
        numbers = ", ".join(f'"{each}": 1.0' for each in cell.inputs)
        raise OptionError(
            f"the cell {cell.name} must be given {', '.join(cell.inputs)} beside x, which a task does not have; let it "
            f"say a number for calls that give none: inputs = {{{numbers}}}"
        )
    if len(cell.outputs) > 1:
        raise OptionError(
            f"the cell {cell.name} gives {len(cell.outputs)} outputs a step ({', '.join(cell.outputs)}), and a task "
            "reads one; take a cell whose step returns one"
        )
    (units,) = widths_of(cell.graph).outputs
    if units != HIDDEN:
        raise OptionError(
            f"the cell {cell.name} gives {units} units a step, and a task reads one output of hidden_size units; take "
            "a cell whose output has H units"
        )
    return cell


def _named(value: Any) -> tuple[Cell, ...]:
    known = known_cell(value)  # first, for a cell may be called "a+b"
    if known is not None:
        return (known,)
    if isinstance(value, str) and JOIN in value:
        return tuple(cells.get(each.strip()) for each in value.split(JOIN))
    if isinstance(value, str) and "," in value:
        _refuse_comma(value)
    return (cells.get(value),)


def joined_name(members: Sequence[Cell]) -> str:
    """The names of several cells as one, which `cells_of` takes apart."""
    return JOIN.join(each.name for each in members)


def _refuse_comma(value: str) -> None:
    """Raise UnknownCellError with what was meant, where all names in a list with commas are known."""
    names = [each.strip() for each in value.split(",")]
    if all(known_cell(each) is not None for each in names):
        hint = f"members of several cells are written {JOIN.join(names)}; "
        raise UnknownCellError(name=value, hint=hint, known=cells.summary())
