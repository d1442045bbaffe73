"""`cellwise cells`: what ships."""

from __future__ import annotations

import inspect
from typing import Any

import click

from cellwise import cells as known
from cellwise.cells.base import Cell
from cellwise.cli.output import Json, print_json, print_table
from cellwise.plan import parameter_layout


def cells(as_json: Json = False) -> None:
    """List the cells that ship: gates, states, parameters, and the paper that each is from."""
    found = [known.get(name) for name in known.names()]
    if as_json:
        print_json([_facts(cell) for cell in found])
        return
    titles = ("name", "gates", "states", "own", "parameters of a layer", "what it is")
    rows = (
        (
            cell.name,
            " ".join(cell.gates),
            " ".join(cell.states),
            " ".join((*cell.vectors, *cell.scalars)) or "-",
            count(cell),
            summary(cell),
        )
        for cell in found
    )
    print_table(titles, rows, left=len(titles), prose=True)
    click.echo("\nD is the input size, H the hidden size; own: parameters besides weights and biases.")
    click.echo("See one with: cellwise show NAME")


def _facts(cell: Cell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "gates": cell.gates,
        "states": cell.states,
        "inputs": tuple(cell.inputs),
        "vectors": cell.vectors,
        "scalars": cell.scalars,
        "options": dict(cell.options),
        "parameters": count(cell),
        "about": summary(cell),
    }


def summary(cell: Cell) -> str:
    """The first line of a cell's description: what it is, and its paper."""
    return (inspect.getdoc(type(cell)) or "").partition("\n")[0]


def count(cell: Cell) -> str:
    """The number of parameters of one layer in one direction as a formula in D and H, read from its layout."""
    # With unlike marks for D and H, each shape tells which of the two it is made of.
    D, H = 1_000_003, 1_009
    totals = {"HD": 0, "H²": 0, "H": 0, "": 0}
    for spec in parameter_layout(cell.graph, D, H, bias=True):
        kind = {(): "", (H,): "H", (D,): "HD"}.get(
            spec.shape[1:] if len(spec.shape) == 2 else spec.shape, "H"
        )
        kind = "H²" if len(spec.shape) == 2 and spec.shape[1] == H else kind
        totals[kind] += spec.shape[0] // H if spec.shape else 1
    return " + ".join(
        f"{number if number > 1 or not kind else ''}{kind}" for kind, number in totals.items() if number
    )
