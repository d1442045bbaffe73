"""`cellwise show NAME`: a cell as equations, LaTeX, source, graph, gradient or diagram, or as what runs on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click

from cellwise.cells.base import Cell
from cellwise.cli.cell_argument import HELP, cell_of, complete
from cellwise.cli.command import argument, option
from cellwise.cli.output import check_file
from cellwise.errors import did_you_mean
from cellwise.graph import equations, listing
from cellwise.graph.expr import RAW
from cellwise.graph.forms import FORMS, stems_of
from cellwise.understand.catalogue import Entry
from cellwise.understand.views import PICTURES, VIEWS, ViewError, save_picture, view, view_for_file

# The names are those of cellwise.backends.cpu.stages, which needs LLVM and so is not loaded for a line of help.
_STAGES = {
    "plan": "its buffers, products and equations, and what is written where",
    "llvm": "the LLVM IR emitted for it",
    "asm": "the assembly",
}
_PASSES = ("forward", "hoisted", "training", "backward", "recomputing")


def show(
    name: Annotated[str, argument(metavar="CELL", help=HELP, shell_complete=complete)],
    view_name: Annotated[
        str | None,
        option(
            "--as",
            metavar="VIEW",
            help="; ".join(f"{key}: {each.shows}" for key, each in VIEWS.items())
            + ".  [default: by the ending of --out, else an overview]",
        ),
    ] = None,
    unrolled: Annotated[
        int | None,
        option(metavar="N", help="Unroll the network over N time steps, 1 to 1,000 (mermaid and svg)."),
    ] = None,
    stage: Annotated[
        str | None,
        option(
            metavar="STAGE",
            help="A stage of the cpu backend, for float32 on this machine; "
            + "; ".join(f"{key}: {shows}" for key, shows in _STAGES.items())
            + ".",
        ),
    ] = None,
    which: Annotated[
        str | None,
        option(
            "--pass",
            metavar="PASS",
            help="With --stage: forward, hoisted (forward, the inputs of many steps multiplied at once), training "
            "(forward, saving what backward needs), backward or recomputing (backward with nothing saved).  "
            "[default: forward; for plan, forward and backward]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option(metavar="FILE", help="File to write; diagrams also as .png or .pdf."),
    ] = None,
) -> None:
    """Show a cell: its equations and graph, or what --as or --stage asks for."""
    if stage is not None:
        _check_alone(view_name, unrolled)
        _check_stage(stage, which)
    elif which is not None:
        raise ViewError("--pass needs --stage plan, llvm or asm.")
    if out is not None:
        check_file(out)
        view_name = view_for_file(out, view_name or stage)
    if view_name is None and unrolled is not None:
        able = " or ".join(f"--as {key}" for key, each in VIEWS.items() if each.unrolled is not None)
        raise ViewError(f"--unrolled needs {able}.")
    cell = cell_of(name)
    if stage is not None:
        # LLVM is loaded when it is asked for.
        from cellwise.backends.cpu.stages import stage_text

        _put(stage_text(cell.graph, stage, which), stage, out)
    elif out is not None and out.suffix.lower() in PICTURES:
        save_picture(cell, out, unrolled=unrolled)
        click.echo(f"diagram: {out}")
    else:
        text = _overview(cell) if view_name is None else view(cell, view_name, unrolled=unrolled)
        _put(text, view_name or "overview", out)


def _check_alone(view_name: str | None, unrolled: int | None) -> None:
    other = "--as" if view_name is not None else "--unrolled" if unrolled is not None else None
    if other is not None:
        raise ViewError(f"--stage and {other} cannot be combined; give one of them.")


def _check_stage(stage: str, which: str | None) -> None:
    if stage not in _STAGES:
        hint = did_you_mean(stage, _STAGES)
        raise ViewError(f"There is no stage called '{stage}'; {hint}the stages are: {', '.join(_STAGES)}.")
    if which is not None and which not in _PASSES:
        hint = did_you_mean(which, _PASSES)
        raise ViewError(f"There is no pass called '{which}'; {hint}the passes are: {', '.join(_PASSES)}.")


def _put(text: str, what: str, out: Path | None) -> None:
    if out is None:
        click.echo(text.rstrip("\n"))
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text.rstrip("\n") + "\n", encoding="utf8")
        click.echo(f"{what}: {out}")


def _overview(cell: Cell) -> str:
    """Equations, symbols, parameters and graph."""
    entry = Entry(cell)
    parts = [
        "\n".join(filter(None, (f"{cell.name}: {entry.about}".rstrip(": "), entry.notes))),
        _section("Equations", cell.equations),
        *_training(cell),
        _section("Symbols", "\n".join(_symbols(cell))),
        _section("Parameters of a layer", f"{entry.parameters}   (D input size, H hidden size)"),
        _section("Graph, one value a line, with its shape and the line it comes from", listing(cell.graph)),
    ]
    return "\n\n".join(parts)


def _training(cell: Cell) -> list[str]:
    same = cell.training_graph is cell.graph
    return [] if same else [_section("Equations in training", equations(cell.training_graph))]


def _section(title: str, body: str) -> str:
    return f"{title}\n" + "\n".join(f"  {line}" for line in body.splitlines())


def _symbols(cell: Cell) -> list[str]:
    equations, parts = cell.equations, cell.graph.input_parts
    size = (
        " of the state's size"
        if RAW in parts
        else " H of each gate that is ready, x_gate"
        if parts
        else " of size D"
    )
    legend = {
        "x": f"the input of this step,{size}",
        "'": "a state after this step; without it, before",
        "W_i": "input weights, rows of weight_ih; b_i, of bias_ih",
        "W_h": "recurrent weights, rows of weight_hh; b_h, of bias_hh",
        "σ": "sigmoid, 1 / (1 + exp(-v))",
        "⊙": "product element by element",
    }
    told = [f"{sign:<4} {meaning}" for sign, meaning in legend.items() if sign in equations]
    for place, form in cell.graph.forms.items():
        letters = [name[1] for name, _ in FORMS[form.kind].written[1:]]  # of δA, without the δ
        stems = stems_of(*place, form)
        told += [
            f"{letter}_{place[0][0]}{place[1]} {stem}" for letter, stem in zip(letters, stems, strict=True)
        ]
    return told
