"""`cellwise cells`: what ships, searched and sorted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import click

from cellwise.cli.command import argument, option
from cellwise.cli.output import Json, print_json, print_table
from cellwise.graph.expr import first_name
from cellwise.understand.catalogue import PROPERTIES, Entry, entries

# What the list may be sorted by; equal ones stay in the order of the alphabet.
_ORDERS: dict[str, Callable[[Entry], Any]] = {
    "name": lambda entry: entry.name,
    "year": lambda entry: entry.year or 0,
    "parameters": lambda entry: entry.size,
    "gates": lambda entry: len(entry.cell.gates),
    "states": lambda entry: len(entry.cell.states),
}
_MOST_LISTED = 6  # names in a column; of more their number


def cells(
    words: Annotated[
        list[str] | None,
        argument(
            metavar="[WORD ...]", help="Words of the name, the description or the paper.  [default: all]"
        ),
    ] = None,
    sort: Annotated[
        str,
        option(
            type=click.Choice(list(_ORDERS)),
            metavar="BY",
            help=f"Order of the list: by {', '.join(_ORDERS)}.",
        ),
    ] = "name",
    properties: Annotated[
        list[str] | None,
        option(
            "--property",
            type=click.Choice(list(PROPERTIES)),
            metavar="PROPERTY",
            help=f"Only cells whose equations are so: {', '.join(PROPERTIES)}; may be given several times.",
        ),
    ] = None,
    since: Annotated[int | None, option(help="Only papers of this year or later.", metavar="YEAR")] = None,
    until: Annotated[int | None, option(help="Only papers of this year or earlier.", metavar="YEAR")] = None,
    gates: Annotated[int | None, option(help="At most so many gates.", metavar="N")] = None,
    states: Annotated[int | None, option(help="At most so many states.", metavar="N")] = None,
    matrices: Annotated[
        int | None, option(help="At most so many weight matrices; an LSTM has 8.", metavar="N")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the cells that ship: gates, states, parameters, and the paper that each is from."""

    def fits(entry: Entry) -> bool:
        limits = (
            (gates, len(entry.cell.gates)),
            (states, len(entry.cell.states)),
            (matrices, entry.matrices),
        )
        return (
            entry.says(words or ())
            and set(properties or ()) <= set(entry.properties)
            and (since is None or (entry.year or 0) >= since)
            and (until is None or (entry.year or 9999) <= until)
            and all(most is None or number <= most for most, number in limits)
        )

    every = entries()
    found = sorted(filter(fits, every), key=_ORDERS[sort])
    if as_json:
        print_json([_facts(entry) for entry in found])
        return
    if not found:
        click.echo(f"None of the {len(every)} cells fits; leave out a word or an option.")
        return
    titles = ("name", "year", "gates", "states", "own", "parameters of a layer", "what it is")
    print_table(titles, map(_row, found), left=len(titles), prose=True)
    click.echo("\nD is the input size, H the hidden size; own: parameters besides weights and biases.")
    click.echo(f"{len(found)} of {len(every)} cells.")
    click.echo("See one with: cellwise show NAME\n")
    if not properties:
        meanings = ((name, meaning) for name, (meaning, _) in PROPERTIES.items())
        print_table(("--property", "what it means"), meanings, left=2, prose=True)


def _row(entry: Entry) -> tuple[str, ...]:
    cell = entry.cell
    return (
        entry.name,
        str(entry.year or "-"),
        _listed(cell.gates),
        _listed(cell.states),
        _listed((*cell.vectors, *cell.scalars, *map(first_name, cell.learned_first))),
        entry.parameters,
        entry.about,
    )


def _listed(names: tuple[str, ...]) -> str:
    return (" ".join(names) or "-") if len(names) <= _MOST_LISTED else str(len(names))


def _facts(entry: Entry) -> dict[str, Any]:
    cell = entry.cell
    return {
        "name": entry.name,
        "gates": cell.gates,
        "states": cell.states,
        "inputs": tuple(cell.inputs),
        "output": cell.output,
        "outputs": cell.outputs,
        "vectors": cell.vectors,
        "scalars": cell.scalars,
        "learned_first": cell.learned_first,
        "options": dict(cell.options),
        "parameters": entry.parameters,
        "matrices": entry.matrices,
        "properties": entry.properties,
        "about": entry.about,
        "notes": entry.notes,
        "paper": entry.paper,
        "year": entry.year,
    }
