"""How the parameters and states of a cell of several widths lie in rows of one width, as plain values."""

from __future__ import annotations

from typing import NamedTuple

from cellwise.graph import StepGraph
from cellwise.graph.forms import apart_stem, stems_of
from cellwise.graph.widths import Widths, row_width, widths_of
from cellwise.passes import masks
from cellwise.plan.layout import output_sizes, state_sizes


class PaddedGate(NamedTuple):
    """One gate of a weight: its true size, and what it is made of.

    kind, number: of its form; an empty kind if it is learned as it is. stems: the parameters that it is; none if it is
    the next rows of the weight that all share. columns: of a recurrent weight.
    """

    rows: int
    columns: int
    kind: str
    number: float | str
    stems: tuple[str, ...]


class Padding(NamedTuple):
    """What of a layer lies in rows of `width` numbers.

    weights, biases: by the stem that kernels know them by, gate after gate; of a bias its rows, and whether it is
    there. own: vectors with their units, and scalars with 0. masks: what `padded` asks for besides. inputs: the units
    of values beside x, None where they can only be one number a row.
    """

    width: int
    directions: int
    weights: tuple[tuple[str, tuple[PaddedGate, ...]], ...]
    biases: tuple[tuple[str, tuple[tuple[int, bool], ...]], ...]
    vectors: tuple[tuple[str, int], ...]
    masks: tuple[tuple[str, int], ...]
    scalars: tuple[str, ...]
    states: tuple[int, ...]
    outputs: tuple[int, ...]
    inputs: tuple[tuple[str, int | None], ...]
    draws: tuple[tuple[str, int], ...]


def padding_of(graph: StepGraph, hidden_size: int, bias: bool, directions: int) -> Padding | None:
    """That of a layer; None if all its values have H units."""
    if not graph.widths:
        return None
    widths = widths_of(graph)
    kinds = (("ih", graph.input_gates), ("hh", graph.state_gates))
    biases = (
        ("bias_ih", graph.input_gates, graph.input_biases),
        ("bias_hh", graph.state_gates, graph.state_biases),
    )
    return Padding(
        width=row_width(graph, hidden_size),
        directions=directions,
        weights=tuple(
            (f"weight_{kind}", tuple(_gate(graph, widths, kind, gate, hidden_size) for gate in gates))
            for kind, gates in kinds
            if gates
        ),
        biases=tuple(
            (stem, tuple((widths.gates[gate].at(hidden_size), gate in having) for gate in gates))
            for stem, gates, having in biases
            if gates and bias
        ),
        vectors=tuple((name, units.at(hidden_size)) for name, units in widths.vectors.items()),
        masks=masks(graph, hidden_size),
        scalars=graph.scalars,
        states=state_sizes(graph, hidden_size),
        outputs=output_sizes(graph, hidden_size),
        inputs=tuple((name, units and units.at(hidden_size)) for name, units in widths.inputs.items()),
        draws=tuple((name, units.at(hidden_size)) for name, units in widths.draws.items()),
    )


def _gate(graph: StepGraph, widths: Widths, kind: str, gate: str, hidden_size: int) -> PaddedGate:
    rows = widths.gates[gate].at(hidden_size)
    columns = widths.columns[gate].at(hidden_size) if kind == "hh" else 0
    form = graph.forms.get((kind, gate))
    if form is not None:
        return PaddedGate(rows, columns, form.kind, form.number, stems_of(kind, gate, form))
    return PaddedGate(rows, columns, "", 0, (apart_stem(gate),) if gate in graph.apart(kind) else ())
