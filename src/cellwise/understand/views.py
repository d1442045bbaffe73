"""The views of a cell, in one table: what `cellwise show --as` and `view` know."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cellwise import cells
from cellwise.cells.base import Cell
from cellwise.errors import CellwiseError, did_you_mean
from cellwise.graph import StepGraph, listing

__all__ = ["PICTURES", "VIEWS", "View", "ViewError", "save_picture", "view", "view_for_file"]

# Files that hold a diagram and are no text.
PICTURES = (".png", ".pdf")
# Endings that promise something else than text, of which we can write none.
_NO_TEXT = (
    ".jpg",
    ".jpeg",
    ".gif",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".eps",
    ".ps",
    ".ico",
    ".docx",
    ".html",
    ".zip",
)
_TEXT = ("", ".txt", ".md")
# A longer picture is one that nothing opens: a megabyte of SVG, 300,000 pixels wide.
_MOST_STEPS = 1000


class ViewError(CellwiseError, ValueError):
    """A view was asked for that there is not, or in a way in which it cannot be had."""


@dataclass(frozen=True)
class View:
    """One way to see a cell.

    Attributes:
        shows: what it is, for the help.
        of: the text of a cell.
        unrolled: the text of a network of so many steps, where the view can show that.
        suffix: the ending of files that hold it, where they have one of their own.
    """

    shows: str
    of: Callable[[Cell], str]
    unrolled: Callable[[StepGraph, int], str] | None = None
    suffix: str = ""


def _source(cell: Cell) -> str:
    """The class of a cell, after those that it takes its definition from."""
    kinds = [kind for kind in reversed(type(cell).__mro__) if issubclass(kind, Cell) and kind is not Cell]
    try:
        return "\n\n".join(textwrap.dedent(inspect.getsource(kind)) for kind in kinds).rstrip()
    except (OSError, TypeError):
        raise ViewError(
            f"The source of {type(cell).__name__} cannot be read, since it was not defined in a file; "
            "the view equations shows what it computes."
        ) from None


# Each view is loaded when it is asked for: their names are enough for a line of help.


def _latex(cell: Cell) -> str:
    from cellwise.understand.latex import latex

    return latex(cell.graph)


def _gradient(cell: Cell) -> str:
    from cellwise.understand.backward_equations import gradient_text

    return gradient_text(cell.graph)


def _gradient_latex(cell: Cell) -> str:
    from cellwise.understand.backward_equations import gradient_latex

    return gradient_latex(cell.graph)


def _mermaid(graph: StepGraph, steps: int | None) -> str:
    from cellwise.understand import diagram

    return diagram.mermaid(graph) if steps is None else diagram.unrolled_mermaid(graph, steps)


def _svg(graph: StepGraph, steps: int | None) -> str:
    from cellwise.understand import diagram

    return diagram.svg(graph) if steps is None else diagram.unrolled_svg(graph, steps)


VIEWS: dict[str, View] = {
    "equations": View("the equations, as text", lambda cell: cell.equations),
    "latex": View("the equations, in LaTeX", _latex, suffix=".tex"),
    "source": View("the class that defines it", _source, suffix=".py"),
    "graph": View("the values of a step, one a line", lambda cell: listing(cell.graph)),
    "gradient": View("the backward equations, as text", _gradient),
    "gradient-latex": View("the backward equations, in LaTeX", _gradient_latex),
    "mermaid": View("a diagram for Mermaid", lambda cell: _mermaid(cell.graph, None), _mermaid, ".mmd"),
    "svg": View("a diagram as SVG", lambda cell: _svg(cell.graph, None), _svg, ".svg"),
}


def view(cell: str | type[Cell] | Cell, name: str, *, unrolled: int | None = None) -> str:
    """A cell as `name` shows it, one of VIEWS.

    Args:
        cell: a registered name, a Cell class or an instance.
        name: equations, latex, source, graph, gradient, gradient-latex, mermaid or svg.
        unrolled: for mermaid and svg, show the network through so many steps of time, 1 to 1,000, instead of one step.

    Raises:
        ViewError: there is no such view; or it cannot be unrolled, or not over so many steps.
        UnknownCellError: no cell has this name.

    >>> print(view("mingru", "equations"))
    z = σ(W_iz x + b_iz)
    h' = (1 − z) ⊙ h + z ⊙ (W_in x + b_in)
    >>> view("lstm", "svg", unrolled=3).count("<title>step")
    3
    """
    if name not in VIEWS:
        hint = did_you_mean(name, VIEWS)
        raise ViewError(f"There is no view called '{name}'; {hint}the views are: {', '.join(VIEWS)}.")
    chosen, found = VIEWS[name], cells.get(cell)
    if unrolled is None:
        return chosen.of(found)
    if chosen.unrolled is None:
        able = " and ".join(key for key, each in VIEWS.items() if each.unrolled is not None)
        raise ViewError(f"The view {name} shows one step and cannot be unrolled; those that can are {able}.")
    if not 1 <= unrolled <= _MOST_STEPS:
        raise ViewError(f"A network is unrolled over 1 to {_MOST_STEPS:,} steps, not {unrolled:,}.")
    return chosen.unrolled(found.graph, unrolled)


def save_picture(cell: str | type[Cell] | Cell, path: Path, *, unrolled: int | None = None) -> None:
    """Draw the diagram of a cell, or of the network through `unrolled` steps, into a .png or .pdf.

    Raises:
        FigureError: matplotlib is not installed.
        ViewError, UnknownCellError: as `view`.
    """
    from cellwise.understand.diagram.paper import figure_of
    from cellwise.understand.figures import in_style, save

    with in_style():
        figure = figure_of(view(cell, "svg", unrolled=unrolled))
    save(figure, path)


def view_for_file(path: Path, asked: str | None = None) -> str | None:
    """The view that a file of this name holds: `asked`, else by its ending; None where nothing says so.

    Raises:
        ViewError: the ending is that of another view, or of no file that could be written.

    >>> view_for_file(Path("gru.svg")), view_for_file(Path("gru.png")), view_for_file(Path("gru.txt"), "latex")
    ('svg', 'svg', 'latex')
    """
    ending = path.suffix.lower()
    known = {each.suffix: name for name, each in VIEWS.items() if each.suffix} | dict.fromkeys(
        PICTURES, "svg"
    )
    if ending in _NO_TEXT or (asked is None and ending not in (*known, *_TEXT)):
        raise ViewError(
            f"Nothing can be written into a {ending}; a diagram can be a .svg, .png or .pdf, text a .tex, .mmd or .txt."
        )
    # .tex may hold either set of equations, .py and .mmd whatever text one likes.
    if asked is not None and ending in (".svg", *PICTURES) and asked != "svg":
        raise ViewError(
            f"A {ending} holds the diagram, and {asked} is text; write it into a .txt, or ask for no view beside --out."
        )
    return asked or known.get(ending)
