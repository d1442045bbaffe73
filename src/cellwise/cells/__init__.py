"""The cells that ship, one a file, and the names by which they are found.

A file in this folder is a cell: nothing else has to be told of it.
"""

from __future__ import annotations

import importlib
import pkgutil

from cellwise.cells.base import Cell, Scalar, Vector, class_source
from cellwise.errors import CellDefinitionError, UnknownCellError, did_you_mean

_CELLS: dict[str, type[Cell]] = {}


def register(cell: type[Cell]) -> type[Cell]:
    """Make a cell known by its `name`. Also a decorator.

    Raises:
        CellDefinitionError: another cell has this name.
    """
    name = _normal(cell.name)
    known = _CELLS.setdefault(name, cell)
    if known is not cell and (known.__module__, known.__qualname__) != (cell.__module__, cell.__qualname__):
        raise CellDefinitionError(
            problem=f"{cell.__qualname__} is called '{name}', and so is {known.__module__}.{known.__qualname__}.",
            where=class_source(cell),
            remedy='Give it another name: name = "..." in the class.',
        )
    _CELLS[name] = cell
    return cell


def names() -> tuple[str, ...]:
    """The names of all known cells, shipped and registered, in alphabetical order."""
    return tuple(sorted(_CELLS))


def get(cell: str | type[Cell] | Cell) -> Cell:
    """The cell of a name, a class or an instance, with its default options unless it is an instance.

    Raises:
        UnknownCellError: no cell has this name.
    """
    if isinstance(cell, Cell):
        return cell
    if isinstance(cell, type) and issubclass(cell, Cell):
        return cell()
    if not isinstance(cell, str):
        raise TypeError(f"a cell is a name, a Cell class or an instance of one; got {cell!r}")
    found = _CELLS.get(_normal(cell))
    if found is None:
        hint = did_you_mean(_normal(cell), names())
        raise UnknownCellError(name=cell, hint=hint, known=", ".join(names()))
    return found()


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _discover() -> None:
    for module in pkgutil.iter_modules(__path__):
        loaded = importlib.import_module(f"{__name__}.{module.name}")
        for value in vars(loaded).values():
            defined_here = isinstance(value, type) and value.__module__ == loaded.__name__
            if defined_here and issubclass(value, Cell) and value.step is not Cell.step:
                globals()[register(value).__name__] = value


_discover()

__all__ = ["Cell", "Scalar", "Vector", "get", "names", "register"]
