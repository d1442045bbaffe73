"""`cellwise cells`: what ships."""

from __future__ import annotations

import inspect

import typer

from cellwise import cells as known
from cellwise.cells.base import Cell
from cellwise.plan import parameter_layout, plan_of


def cells() -> None:
    """List the cells: gates, states, parameters, paper."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "gates", "states", "own parameters", "parameters of a layer", "what it is"):
        table.add_column(column, overflow="fold")
    for name in known.names():
        cell = known.get(name)
        own = " ".join((*cell.vectors, *cell.scalars)) or "-"
        table.add_row(name, " ".join(cell.gates), " ".join(cell.states), own, count(cell), summary(cell))
    console = Console(
        width=None if typer.get_text_stream("stdout").isatty() else 160, markup=False, emoji=False
    )
    console.print(table)
    console.print("D is the input size, H the hidden size. See one with: cellwise show NAME")


def summary(cell: Cell) -> str:
    """The first line of a cell's description: what it is, and its paper."""
    return (inspect.getdoc(type(cell)) or "").partition("\n")[0]


def count(cell: Cell) -> str:
    """The number of parameters of one layer in one direction as a formula in D and H, read from its layout."""
    # With unlike marks for D and H, each shape tells which of the two it is made of.
    D, H = 1_000_003, 1_009
    totals = {"HD": 0, "H²": 0, "H": 0, "": 0}
    for spec in parameter_layout(plan_of(cell.graph), D, H, bias=True):
        kind = {(): "", (H,): "H", (D,): "HD"}.get(
            spec.shape[1:] if len(spec.shape) == 2 else spec.shape, "H"
        )
        kind = "H²" if len(spec.shape) == 2 and spec.shape[1] == H else kind
        totals[kind] += spec.shape[0] // H if spec.shape else 1
    return " + ".join(
        f"{number if number > 1 or not kind else ''}{kind}" for kind, number in totals.items() if number
    )
