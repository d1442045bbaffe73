"""`cellwise complexity NAME ...`: what cells cost, as formulas, as numbers, and in time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellwise import cells as known
from cellwise.cells.base import Cell
from cellwise.cli.cell_argument import HELP, cell_of
from cellwise.plan.polynomial import LETTERS
from cellwise.understand.complexity import (
    DEFINITION,
    QUANTITIES,
    ComplexityError,
    Cost,
    Sizes,
    values,
)
from cellwise.understand.complexity import complexity as count

if TYPE_CHECKING:
    from cellwise.understand.growth import Growth

_DEFAULT = Sizes()
_BYTES = 4  # of a number in float32
_GAP = 3  # between the columns of a table


def complexity(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help=f"{HELP}  [default: all]")] = None,
    input_size: Annotated[int, typer.Option(help="d, the size of the input.")] = _DEFAULT.input_size,
    hidden_size: Annotated[int, typer.Option(help="h, the size of the state.")] = _DEFAULT.hidden_size,
    layers: Annotated[
        int, typer.Option(help="Layers, each over the outputs of the one below.")
    ] = _DEFAULT.layers,
    batch: Annotated[int, typer.Option(help="b, sequences at once.")] = _DEFAULT.batch,
    length: Annotated[int, typer.Option(help="t, steps of each sequence.")] = _DEFAULT.length,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute", help="The backward pass computes each step again: `layer.recompute = True`."
        ),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Also run the layers here, at the sizes given and halves of them, and fit exponents.",
        ),
    ] = False,
    repeats: Annotated[int, typer.Option(min=1, help="How often to measure each size.")] = 7,
    out: Annotated[
        Path | None, typer.Option(help="With --measure: the figure, a .png, .svg or .pdf.", metavar="FILE")
    ] = None,
) -> None:
    """Count parameters, operations, bytes, memory and depth of cells; with --measure, run them too."""
    chosen = [cell_of(name) for name in dict.fromkeys(names or known.names())]
    sizes = Sizes(input_size, hidden_size, layers, batch, length)
    if measure and recompute:
        raise ComplexityError("--measure runs layers that keep their tape; leave out --recompute.")
    _check(measure, out, sizes)
    costs = [count(cell, layers, recompute=recompute) for cell in chosen]
    labels = [cell.name for cell in chosen]
    typer.echo(f"{DEFINITION}\n")
    legend = ", ".join(f"{letter} {name}" for letter, name in LETTERS.items())
    typer.echo(f"Formulas for {_layers(layers)} with bias ({legend}; bytes moved and memory in numbers):")
    _print(["", *labels], _formulas(costs))
    lanes = _lanes()
    padded = (
        f"; memory of this machine's kernels, with rows of h in vectors of {lanes}"
        if hidden_size % lanes
        else ""
    )
    typer.echo(
        f"At d = {input_size}, h = {hidden_size}, b = {batch}, t = {length}; "
        f"bytes of float32 ({_BYTES} a number){padded}:"
    )
    _print(["", *labels], _numbers(costs, sizes, lanes))
    if measure:
        _measure(chosen, sizes, repeats, out)


def _check(measure: bool, out: Path | None, sizes: Sizes) -> None:
    """What is wrong with the request is said before anything is printed or measured."""
    from cellwise.understand.growth import ranges

    if measure:
        ranges(sizes)
    if out is None:
        return
    if not measure:
        raise ComplexityError(f"--out {out} is for the figure of measurements; add --measure.")
    from cellwise.understand.figures import check_target, in_style

    check_target(out)
    in_style()
    if not out.parent.is_dir():
        raise ComplexityError(f"the folder {out.parent} of --out {out} does not exist; make it first.")


def _layers(count: int) -> str:
    return f"{count} layer{'s' * (count > 1)}"


def _formulas(costs: Sequence[Cost]) -> Iterable[list[str]]:
    for quantity in QUANTITIES:
        yield [quantity.name, *(str(quantity.of(cost)) for cost in costs)]
    yield ["depth, forward", *(str(cost.forward_depth) for cost in costs)]
    yield ["depth, backward", *(str(cost.backward_depth) for cost in costs)]


def _lanes() -> int:
    """Numbers of a vector of this machine."""
    from cellwise.backends.cpu.target import host

    return host().lanes(_BYTES)


def _numbers(costs: Sequence[Cost], sizes: Sizes, lanes: int) -> Iterable[list[str]]:
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


def _print(titles: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> None:
    """A table; its first `left` columns are words. Where a terminal is too narrow, the others come in several."""
    from rich.console import Console

    # Where it does not go to a terminal, the table is as wide as it needs to be.
    console = Console(
        width=None if typer.get_text_stream("stdout").isatty() else 400, markup=False, emoji=False
    )
    rows = list(rows)
    widths = [_GAP + max(len(row[place]) for row in (titles, *rows)) for place in range(len(titles))]
    for columns in _groups(widths, left, console.width):
        console.print(_table([titles[i] for i in columns], [[row[i] for i in columns] for row in rows], left))


def _groups(widths: Sequence[int], left: int, room: int) -> list[list[int]]:
    """The columns of each table, so that it fits; the first `left` stand in all, and at least one beside them.

    >>> _groups([10, 5, 5, 5], left=1, room=20), _groups([10, 50, 5], left=1, room=20)
    ([[0, 1, 2], [0, 3]], [[0, 1], [0, 2]])
    """
    groups: list[list[int]] = [list(range(left))]
    for place in range(left, len(widths)):
        if len(groups[-1]) > left and sum(widths[i] for i in groups[-1]) + widths[place] > room:
            groups.append(list(range(left)))
        groups[-1].append(place)
    return groups


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(title, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _measure(chosen: Sequence[Cell], sizes: Sizes, repeats: int, out: Path | None) -> None:
    from cellwise.understand.growth import measure

    growth = measure(chosen, sizes, repeats, report=lambda line: typer.echo(line, err=True))
    _print_growth(growth)
    if out is not None:
        from cellwise.understand.complexity_chart import draw_growth
        from cellwise.understand.figures import save

        save(draw_growth(growth), out)
        typer.echo(f"figure: {out}")


def _print_growth(growth: Growth) -> None:
    import torch

    ran = ", ".join(f"{cell} on {backend}" for cell, backend in growth.backends)
    typer.echo(
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
    _print(titles, rows, left=4)
    typer.echo(
        "Linear: the growth's exponent is 1 to a tenth; unsure if the repeats differ too much to tell. "
        "ms and Gop/s are those of the largest size."
    )
    _print_crossings(growth)


def _print_crossings(growth: Growth) -> None:
    typer.echo("\nThe square in h takes over from what is linear in h at:")
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
    _print(("cell", "pass", "by the count", "in the times"), rows, left=2)
