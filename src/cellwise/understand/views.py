"""The views of a cell, in one table: what `cellwise show --as` and `view` know."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cellwise import cells
from cellwise.cells.base import Cell
from cellwise.errors import CellwiseError
from cellwise.graph import StepGraph, listing
from cellwise.understand import diagram
from cellwise.understand.gradient import gradient_latex, gradient_text
from cellwise.understand.latex import latex

__all__ = ["VIEWS", "View", "ViewError", "view", "view_for_file"]


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


VIEWS: dict[str, View] = {
    "equations": View("the equations, as text", lambda cell: cell.equations),
    "latex": View("the equations, in LaTeX", lambda cell: latex(cell.graph), suffix=".tex"),
    "source": View("the class that defines it", _source, suffix=".py"),
    "graph": View("the values of a step, one a line", lambda cell: listing(cell.graph)),
    "gradient": View("the backward equations, as text", lambda cell: gradient_text(cell.graph)),
    "gradient-latex": View("the backward equations, in LaTeX", lambda cell: gradient_latex(cell.graph)),
    "mermaid": View(
        "a diagram for Mermaid", lambda cell: diagram.mermaid(cell.graph), diagram.unrolled_mermaid, ".mmd"
    ),
    "svg": View("a diagram as SVG", lambda cell: diagram.svg(cell.graph), diagram.unrolled_svg, ".svg"),
}


def view(cell: str | type[Cell] | Cell, name: str, *, unrolled: int | None = None) -> str:
    """A cell as `name` shows it, one of VIEWS.

    Args:
        cell: a registered name, a Cell class or an instance.
        name: equations, latex, source, graph, gradient, gradient-latex, mermaid or svg.
        unrolled: for mermaid and svg, show the network through this many steps of time instead of one step.

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
        raise ViewError(f"There is no view called '{name}'; the views are: {', '.join(VIEWS)}.")
    chosen, found = VIEWS[name], cells.get(cell)
    if unrolled is None:
        return chosen.of(found)
    if chosen.unrolled is None:
        able = " and ".join(key for key, each in VIEWS.items() if each.unrolled is not None)
        raise ViewError(f"The view {name} shows one step and cannot be unrolled; those that can are {able}.")
    if unrolled < 1:
        raise ViewError(f"A network is unrolled over at least 1 step, not {unrolled}.")
    return chosen.unrolled(found.graph, unrolled)


def view_for_file(path: Path) -> str | None:
    """The view that the ending of a file asks for, if it does."""
    return next((name for name, each in VIEWS.items() if each.suffix and each.suffix == path.suffix), None)
