"""`cellwise show NAME`: a cell's equations and its graph."""

from __future__ import annotations

from typing import Annotated

import typer

from cellwise.cli.cell_argument import HELP, cell_of
from cellwise.cli.cells import count, summary
from cellwise.graph import listing


def show(name: Annotated[str, typer.Argument(help=HELP)]) -> None:
    """Print the equations of a cell and their graph."""
    cell = cell_of(name)
    graph = cell.graph
    parts = [
        f"{cell.name}: {summary(cell)}".rstrip(": "),
        _section("Equations", cell.equations),
        _section("Symbols", "\n".join(_symbols(cell.equations))),
        _section("Parameters of a layer", f"{count(cell)}   (D input size, H hidden size)"),
        _section("Graph, one value a line, with its shape and the line it comes from", listing(graph)),
    ]
    typer.echo("\n\n".join(parts))


def _section(title: str, body: str) -> str:
    return f"{title}\n" + "\n".join(f"  {line}" for line in body.splitlines())


def _symbols(equations: str) -> list[str]:
    legend = {
        "x": "the input of this step, of size D",
        "'": "a state after this step; without it, before",
        "W_i": "input weights, rows of weight_ih; b_i, of bias_ih",
        "W_h": "recurrent weights, rows of weight_hh; b_h, of bias_hh",
        "σ": "sigmoid, 1 / (1 + exp(-v))",
        "⊙": "product element by element",
    }
    return [f"{sign:<4} {meaning}" for sign, meaning in legend.items() if sign in equations]
