"""What a cell says of the units of its states, gates and outputs, where these are not H."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellwise.errors import CellOptionError
from cellwise.graph.units import HIDDEN, Units, units_of

if TYPE_CHECKING:
    from cellwise.cells.base import Cell

FORMS_OF_UNITS = '40, "H / 4", "2 * H", or the name of an option that is one of these'


def said_widths(cell: Cell) -> tuple[tuple[str, Units], ...]:
    """The units of each name in the cell's `widths`, its options looked up; what has H is left out.

    Raises:
        CellOptionError: an option that is to be a number of units is none.
    """
    said: Any = cell.widths
    if "widths" in cell.options or not isinstance(
        said, Mapping
    ):  # a cell's own option or parameter of this name
        return ()
    found = [(name, _resolved(cell, value)) for name, value in said.items()]
    return tuple((name, units) for name, units in found if units != HIDDEN)


def _resolved(cell: Cell, said: Any) -> Units:
    if said not in cell.options:
        return units_of(said)
    value = cell.options[said]
    try:
        return HIDDEN if value is None else units_of(value)
    except ValueError:
        problem = f'{said}={value!r:.60} (it takes a number of units: 40, "H / 4", or None for H)'
        raise CellOptionError(cell=type(cell).__name__, problem=problem) from None


def problem_of(widths: Any, names: tuple[str, ...], options: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the widths of a class, and the way out; None if nothing is.

    Args:
        names: of its states, gates and outputs.
    """
    remedy = f'It maps names to numbers of units, {FORMS_OF_UNITS}: widths = {{"{names[0]}": 40}}.'
    if not isinstance(widths, Mapping):
        return f"has widths = {widths!r:.80}", remedy
    for name, said in widths.items():
        if name not in names:
            return (
                f"says a width of {name!r:.60}, which is no state, gate or output of it",
                f"There are: {', '.join(dict.fromkeys(names))}.",
            )
        if isinstance(said, str) and said in options:
            continue
        try:
            units_of(said)
        except ValueError:
            return f"says that {name} has {said!r:.60} units", remedy
    return None
