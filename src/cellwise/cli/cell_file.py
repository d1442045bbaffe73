"""A file of the user's own cells: run as Python, so that one broken class does not take the others with it."""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import sys
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NoReturn

from cellwise.cells.base import Cell
from cellwise.errors import CellwiseError


class CellFileError(CellwiseError):
    """A file that a cell was asked from cannot be read, or has none of that name."""


@dataclass(frozen=True)
class CellFile:
    """What was found in a file.

    Attributes:
        cells: the file's own cells by name, classes and instances.
        broken: names of what could not be made, each with the error.
        module: the file as a module.
    """

    path: Path
    module: ModuleType
    cells: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)

    def find(self, name: str) -> Cell:
        """The cell of a name; with an empty name the only one.

        Raises:
            CellFileError: there is none, or several and no name.
            CellError: its definition is wrong.
        """
        if not name:
            return self._only()
        if name in self.broken:
            self._refuse_broken(name, self.broken[name])
        value = getattr(self.module, name, None)
        if isinstance(value, type) and issubclass(value, Cell):
            return value()
        if isinstance(value, Cell):
            return value
        if value is not None:
            what = (
                "a class, but no cellwise.Cell"
                if isinstance(value, type)
                else f"of type {type(value).__name__}"
            )
            raise CellFileError(f"{name} in {self.path} is {what}; {self._have()}.")
        near = difflib.get_close_matches(name, self._names(), n=1)
        hint = f"did you mean {near[0]}? Else, " if near else ""
        raise CellFileError(f"There is no {name} in {self.path}; {hint}{self._have()}.")

    def _only(self) -> Cell:
        names = self._names()
        if len(names) == 1:
            return self.find(names[0])
        if not names:
            raise CellFileError(f"{self.path} holds no cell: no class in it is a subclass of cellwise.Cell.")
        raise CellFileError(
            f"{self.path} holds several cells; name one, as in {self.path}:{names[0]}; {self._have()}."
        )

    def _names(self) -> list[str]:
        return [*self.cells, *(name for name in self.broken if name not in self.cells)]

    def _have(self) -> str:
        names = self._names()
        return f"the cells in it are: {', '.join(names)}" if names else "there are no cells in it"

    def _refuse_broken(self, name: str, error: Exception) -> NoReturn:
        if isinstance(error, NameError) and error.name in self.broken:
            error = self.broken[error.name]
        if isinstance(error, CellwiseError):
            raise error
        raise CellFileError(_said(f"{name} in {self.path} cannot be made", error, self.path)) from error


def read_cell_file(path: Path) -> CellFile:
    """Run a file as Python and look for its cells. It is run once for all of a command.

    Raises:
        CellFileError: there is no such file, or Python cannot run it.
    """
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise CellFileError(f"A cell was asked from the file {path}, which does not exist.") from None
    except OSError as error:
        raise CellFileError(f"The file {path} cannot be read: {error.strerror or error}.") from error
    resolved = path.resolve()
    if (resolved, source) not in _FILES:
        _FILES[resolved, source] = _run(path, resolved, source)
    return replace(_FILES[resolved, source], path=path)


# What was run already, by path and content: asked for twice, a class is the same class.
_FILES: dict[tuple[Path, bytes], CellFile] = {}


def _run(path: Path, resolved: Path, source: bytes) -> CellFile:
    tree = _parsed(path, source)
    # A name of its own: whatever the file is called, it stands for no other module.
    digest = hashlib.sha256(str(resolved).encode() + source).hexdigest()[:12]
    module = ModuleType(f"_cells_of_{path.stem}_{digest}")
    module.__file__ = str(resolved)
    module.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    # Last, so that a file beside it can be imported and stands for nothing that is installed.
    if str(resolved.parent) not in sys.path:
        sys.path.append(str(resolved.parent))
    cell_file = CellFile(path, module)
    # What the file prints is no result of ours.
    with contextlib.redirect_stdout(sys.stderr):
        for statement in tree.body:
            _run_statement(cell_file, statement, tree, str(resolved))
    for name, value in vars(module).items():
        own_class = (
            isinstance(value, type) and issubclass(value, Cell) and value.__module__ == module.__name__
        )
        if (own_class and value.step is not Cell.step) or isinstance(value, Cell):
            cell_file.cells[name] = value
    return cell_file


def _cut(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _parsed(path: Path, source: bytes) -> ast.Module:
    try:
        return ast.parse(source, str(path))
    except SyntaxError as error:
        line = f"\n  {path}:{error.lineno}:  {_cut((error.text or '').strip())}" if error.lineno else ""
        raise CellFileError(f"{path} is not Python: {error.msg}.{line}") from error
    except (ValueError, RecursionError, MemoryError) as error:  # zero bytes; brackets without end
        raise CellFileError(f"{path} is not Python: {error or type(error).__name__}.") from error


def _run_statement(cell_file: CellFile, statement: ast.stmt, tree: ast.Module, file: str) -> None:
    """Run one statement. What a class or a cell that fails would have been called is kept with its error."""
    try:
        code = compile(ast.Module([statement], []), file, "exec", _futures(tree), dont_inherit=True)
        assert isinstance(code, CodeType)
        exec(code, vars(cell_file.module))
    except Exception as error:
        names = _bound(statement)
        blamed = isinstance(error, CellwiseError) or (
            isinstance(error, NameError) and error.name in cell_file.broken
        )
        if not names or not (isinstance(statement, ast.ClassDef) or blamed):
            raise CellFileError(_said(f"{cell_file.path} cannot be run", error, cell_file.path)) from error
        cell_file.broken.update(dict.fromkeys(names, error))
    except SystemExit as stop:
        raise CellFileError(
            f"{cell_file.path} cannot be run: it leaves Python, with status {stop.code}."
        ) from stop


def _futures(tree: ast.Module) -> int:
    import __future__

    names = (
        alias.name
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        for alias in statement.names
    )
    return sum({getattr(__future__, name).compiler_flag for name in names if hasattr(__future__, name)})


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a class or an assignment binds."""
    match statement:
        case ast.ClassDef():
            return [statement.name]
        case ast.Assign():
            return [target.id for target in statement.targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []


def _said(what: str, error: Exception, path: Path) -> str:
    """One sentence for an error of Python's, with the line of the file that it came from."""
    if isinstance(error, CellwiseError):
        return str(error)
    said = f"{what}: {type(error).__name__}" + (f": {error}" if str(error) else "")
    resolved = str(path.resolve())
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == resolved]
    where = f"\n  {path}:{frames[-1].lineno}:  {_cut(frames[-1].line or '')}" if frames else ""
    return f"{said.rstrip('.')}.{where}"
