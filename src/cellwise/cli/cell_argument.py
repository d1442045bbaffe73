"""How a cell is named on the command line: by its name, or as FILE.py:Class for one of the user's own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from cellwise import cells
from cellwise.cells.base import Cell
from cellwise.errors import CellwiseError

HELP = "A cell's name (see `cellwise cells`), or FILE.py:Class for one of your own."


class CellFileError(CellwiseError):
    """A file that a cell was asked from has none of that name."""


def cell_of(text: str) -> Cell:
    """The cell that a person named. A FILE.py is run as Python, so it must be one's own.

    Raises:
        UnknownCellError: no cell has this name.
        CellFileError: the file or the class in it does not exist.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        return cells.get(text)
    path = Path(file)
    if not path.is_file():
        raise CellFileError(f"'{text}' asks for a cell in the file {file}, which does not exist.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CellFileError(f"'{file}' cannot be read as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Cell)):
        have = [
            key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, Cell)
        ]
        own = ", ".join(key for key in have if key != "Cell") or "none"
        raise CellFileError(
            f"'{text}' asks for the cell {name or '(no name)'}; the cells in {file} are: {own}."
        )
    return found()
