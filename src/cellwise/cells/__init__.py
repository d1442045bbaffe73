"""The cells that ship, one a file, and the names by which they are found.

A file in this folder is a cell, and its name that of the cell, with - for _: nothing else has to be told of it. It is
read when the cell is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from cellwise.cells.base import Cell, Scalar, Vector, class_source
from cellwise.errors import CellDefinitionError, UnknownCellError, did_you_mean

_NO_CELLS = ("base", "checks", "parameters", "stored", "widths")
# The module of each cell that ships, by its name.
_MODULES = {
    module.name.replace("_", "-"): module.name
    for module in pkgutil.iter_modules(__path__)
    if module.name not in _NO_CELLS
}
# What has been read or registered, by its name.
_CELLS: dict[str, type[Cell]] = {}

# The names of those that tables show, and tests walk, where all that ship would be too many. They have what cells can
# have: several states, parameters of their own, a second product in the step, no product in time.
FAMILIAR = ("rnn", "lstm", "gru", "gru-reset-before", "lstm-peephole", "mingru", "indrnn")


def register(cell: type[Cell]) -> type[Cell]:
    """Make a cell known by its `name`. Also a decorator.

    In the place of one that ships, too, so that a later release can ship more; but for those of FAMILIAR.

    Raises:
        CellDefinitionError: another cell has this name.
    """
    name = _normal(cell.name)
    gives_way = name in _MODULES and name not in FAMILIAR
    known = (_CELLS.get(name) if gives_way else _found(name)) or cell
    if gives_way and known.__module__ == f"{__name__}.{_MODULES[name]}":
        known = cell
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
    return tuple(sorted({*_MODULES, *_CELLS}))


def summary() -> str:
    """What cells there are, as the end of a sentence: the familiar ones, those of one's own, and how many more."""
    own = tuple(name for name in sorted(_CELLS) if name not in _MODULES)
    listed = (*FAMILIAR, *own)
    return f"{', '.join(listed)} and {len(names()) - len(listed)} more (`cellwise cells`)"


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
    found = _found(_normal(cell))
    if found is None:
        hint = did_you_mean(_normal(cell), FAMILIAR) or did_you_mean(_normal(cell), names())
        raise UnknownCellError(name=cell, hint=hint, known=summary())
    return found()


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _found(name: str) -> type[Cell] | None:
    """The class of a cell; that of one that ships is read now."""
    if name not in _CELLS and name in _MODULES:
        _CELLS[name] = _read(name)
    return _CELLS.get(name)


def _read(name: str) -> type[Cell]:
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    for value in vars(module).values():
        own = isinstance(value, type) and issubclass(value, Cell) and value.__module__ == module.__name__
        if own and _normal(value.name) == name:
            return value
    raise CellDefinitionError(
        problem=f"The file {_MODULES[name]}.py has no cell that is called '{name}'.",
        where=f"  {module.__file__}",
        remedy=f'A cell is called as its file: name = "{name}" in the class.',
    )


def __getattr__(class_name: str) -> Any:
    """The class of a cell that ships, as in `cells.GRU`; read now."""
    if class_name[:1].isupper():
        # Most classes are called as their file, so that others need not be read.
        likely = sorted(_MODULES, key=lambda name: name.replace("-", "") != class_name.lower())
        for name in likely:
            cell = _found(name)
            if (
                cell is not None
                and cell.__module__.startswith(f"{__name__}.")
                and cell.__name__ == class_name
            ):
                return cell
    raise AttributeError(f"module {__name__!r} has no attribute {class_name!r}")


__all__ = ["FAMILIAR", "Cell", "Scalar", "Vector", "get", "names", "register"]
