"""`cellwise complexity NAME ...`: what cells cost: formulas, numbers, and measured time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from cellwise import cells as known
from cellwise.cells.base import Cell
from cellwise.cli.cell_argument import HELP, cell_of, complete
from cellwise.cli.command import argument, option
from cellwise.cli.output import Json, check_file, print_json, print_table
from cellwise.plan.polynomial import LETTERS
from cellwise.understand.sizes import ComplexityError, Sizes

if TYPE_CHECKING:
    from cellwise.understand.complexity import Cost
    from cellwise.understand.scaling import Scaling

_DEFAULT = Sizes()
_BYTES = 4  # of a number in float32


def complexity(
    names: Annotated[
        list[str] | None,
        argument(metavar="[CELL ...]", help=f"{HELP}  [default: the familiar ones]", shell_complete=complete),
    ] = None,
    input_size: Annotated[int, option(help="d, the input size.")] = _DEFAULT.input_size,
    hidden_size: Annotated[int, option(help="h, the hidden size.")] = _DEFAULT.hidden_size,
    layers: Annotated[int, option(help="Number of stacked layers.")] = _DEFAULT.layers,
    batch: Annotated[int, option(help="b, sequences in a batch.")] = _DEFAULT.batch,
    length: Annotated[int, option(help="t, length of the sequences.")] = _DEFAULT.length,
    recompute: Annotated[
        bool,
        option(
            "--recompute", help="Count a backward pass that recomputes each step (`layer.recompute = True`)."
        ),
    ] = False,
    measure: Annotated[
        bool,
        option(
            "--measure",
            help="Also time the layers, at these sizes and halves of them, and fit exponents.",
        ),
    ] = False,
    repeats: Annotated[int, option(type=click.IntRange(min=1), help="Measurements per size.")] = 7,
    out: Annotated[
        Path | None, option(help="With --measure: figure to write (.png, .svg, .pdf).", metavar="FILE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Count parameters, operations, bytes, memory and depth of cells; with --measure, time them too."""
    from cellwise.understand.complexity import DEFINITION, computed_beyond, heads_note
    from cellwise.understand.complexity import complexity as count

    chosen = [cell_of(name) for name in dict.fromkeys(names or known.FAMILIAR)]
    sizes = Sizes(input_size, hidden_size, layers, batch, length)
    if measure and recompute:
        raise ComplexityError("--measure does not time recomputing layers; leave out --recompute.")
    if measure and as_json:
        raise ComplexityError("--json prints the counts, and --measure prints times; give one of them.")
    _check(measure, out, sizes)
    costs = [count(cell, layers, recompute=recompute) for cell in chosen]
    labels = [cell.name for cell in chosen]
    if as_json:
        print_json(_facts(costs, labels, sizes))
        return
    click.echo(f"{DEFINITION}\n")
    legend = ", ".join(f"{letter} {name}" for letter, name in LETTERS.items())
    click.echo(f"Formulas for {_layers(layers)} with bias ({legend}; bytes moved and memory in numbers):")
    print_table(["", *labels], _formulas(costs))
    lanes = _lanes()
    padded = (
        f"; memory of this machine's kernels, with rows of h in vectors of {lanes}"
        if hidden_size % lanes
        else ""
    )
    click.echo(
        f"At d = {input_size}, h = {hidden_size}, b = {batch}, t = {length}; "
        f"bytes of float32 ({_BYTES} a number){padded}:"
    )
    print_table(["", *labels], _numbers(costs, sizes, lanes))
    notes = [note(cell, sizes) for cell in chosen for note in (heads_note, computed_beyond)]
    for note in filter(None, notes):
        click.echo(note)
    if measure:
        _measure(chosen, sizes, repeats, out)


def _check(measure: bool, out: Path | None, sizes: Sizes) -> None:
    """What is wrong with the request is said before anything is printed or measured."""
    from cellwise.understand.scaling import ranges

    if measure:
        ranges(sizes)
    if out is None:
        return
    if not measure:
        raise ComplexityError(f"--out {out} is for the figure of --measure; add --measure.")
    from cellwise.understand.figures import FORMATS, in_style

    check_file(out, FORMATS)
    in_style()


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count > 1)}"


def _facts(costs: Sequence[Cost], labels: Sequence[str], sizes: Sizes) -> dict[str, Any]:
    """The tables as data: for each cell each quantity's formula and its value, in bytes where it takes bytes."""
    from cellwise.understand.complexity import values

    formulas, lanes = [row[1:] for row in _formulas(costs)], _lanes()
    found: dict[str, Any] = {label: {} for label in labels}
    for (name, row), texts in zip(values(costs, sizes, _BYTES, lanes), formulas, strict=True):
        for label, number, text in zip(labels, row, texts, strict=True):
            found[label][name] = {"formula": text, "value": number}
    return {
        "sizes": asdict(sizes),
        "letters": LETTERS,
        "bytes_per_number": _BYTES,
        "lanes": lanes,
        "cells": found,
    }


def _formulas(costs: Sequence[Cost]) -> Iterable[list[str]]:
    from cellwise.understand.complexity import QUANTITIES

    for quantity in QUANTITIES:
        yield [quantity.name, *(str(quantity.of(cost)) for cost in costs)]
    yield ["depth, forward", *(str(cost.forward_depth) for cost in costs)]
    yield ["depth, backward", *(str(cost.backward_depth) for cost in costs)]


def _lanes() -> int:
    """Numbers of a vector of this machine."""
    from cellwise.backends.cpu.target import host

    return host().lanes(_BYTES)


def _numbers(costs: Sequence[Cost], sizes: Sizes, lanes: int) -> Iterable[list[str]]:
    from cellwise.understand.complexity import QUANTITIES, values

    takes_bytes = {quantity.name for quantity in QUANTITIES if quantity.bytes}
    for name, row in values(costs, sizes, _BYTES, lanes):
        yield [name, *(_bytes(n) if name in takes_bytes else f"{n:,}" for n in row)]


def _bytes(count: int) -> str:
    """A number of bytes with three digits.

    >>> _bytes(999), _bytes(4096), _bytes(3 * 1024 ** 2)
    ('999 B', '4 KiB', '3 MiB')
    """
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1000 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.3g} {unit}"


def _measure(chosen: Sequence[Cell], sizes: Sizes, repeats: int, out: Path | None) -> None:
    from cellwise.understand.scaling import measure

    growth = measure(chosen, sizes, repeats, report=lambda line: click.echo(line, err=True))
    _print_growth(growth)
    if out is not None:
        from cellwise.understand.figures import save
        from cellwise.understand.scaling_plot import draw_scaling

        save(draw_scaling(growth), out)
        click.echo(f"figure: {out}")


def _print_growth(growth: Scaling) -> None:
    import torch

    ran = ", ".join(f"{cell} on {backend}" for cell, backend in growth.backends)
    click.echo(
        f"Measured with torch {torch.__version__}, float32, one thread, processor time, "
        f"{growth.repeats} repeats; {ran}.\n"
        "Slope: of log time over log size, median (lowest to highest of the repeats); counted: that of the operations. "
        "Growth: the exponent p of fixed + growing * size^p."
    )
    titles = ("cell", "pass", "in", "sizes", "slope", "counted", "growth", "linear", "ms", "Gop/s")
    rows = []
    for curve in growth.curves:
        last = curve.medians[-1]
        rows.append(
            [
                curve.cell,
                curve.work,
                curve.letter,
                f"{curve.sizes[0]} to {curve.sizes[-1]}",
                str(curve.exponent),
                f"{curve.predicted_exponent:.2f}",
                str(curve.exponent_of_growth),
                "" if curve.predicted_crossing is not None else curve.linear,
                f"{1000 * last:.3g}",
                f"{curve.operations[-1] / last / 1e9:.3g}",
            ]
        )
    print_table(titles, rows, left=4)
    click.echo(
        "Linear: the growth's exponent is 1 to a tenth; unsure if the repeats differ too much to tell. "
        "ms and Gop/s are those of the largest size."
    )
    _print_crossings(growth)


def _print_crossings(growth: Scaling) -> None:
    click.echo("\nThe square in h takes over from what is linear in h at:")
    rows: list[list[Any]] = []
    for curve in growth.curves:
        if curve.letter != "h":
            continue
        counted, measured = curve.predicted_crossing, curve.measured_crossing
        rows.append(
            [
                curve.cell,
                curve.work,
                "never" if counted is None else f"{counted:.0f}",
                "not seen"
                if measured is None
                else f"{measured.middle:.0f} ({measured.low:.0f} to {measured.high:.0f})",
            ]
        )
    print_table(("cell", "pass", "by the count", "in the times"), rows, left=2)
