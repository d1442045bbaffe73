"""Which parameters a layer of a cell has, their names, shapes and order; and the weights that its kernels take.

Said here once, for layers and backends. The two are the same but for gates without a bias, where kernels are given
zeros, and for weights that are made of others, where they are given what is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from cellwise.graph import StepGraph
from cellwise.graph.expr import RAW, first_name, ready_part
from cellwise.graph.forms import FORMS, apart_stem, stems_of
from cellwise.graph.widths import widths_of


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of one layer in one direction. `stem` is its name without the layer's suffix."""

    stem: str
    shape: tuple[int, ...]

    def name(self, layer: int, reverse: bool) -> str:
        return f"{self.stem}_l{layer}{'_reverse' if reverse else ''}"


def parameter_layout(
    graph: StepGraph, input_size: int, hidden_size: int, bias: bool, proj_size: int = 0
) -> tuple[ParameterSpec, ...]:
    """The parameters in the order of torch.nn: weights (G*H, D) and (G*H, H), biases (G*H,), projection, then own,
    and last where states begin.

    G counts the gates that are asked for, of the input and of states; for a bias those that have one. After a weight
    stand those of which the weights of other gates are made (`StepGraph.forms`), by the names of these, and those of
    gates that are asked of other widths than H. A gate of other units than H has as many rows.
    """
    units = _UnitsAt(graph, hidden_size)
    specs = []
    for kind, width in (("ih", input_size), ("hh", proj_size or hidden_size)):
        gates = graph.row_gates(kind)
        specs += [ParameterSpec(f"weight_{kind}", (units.rows(gates), width))] if gates else []
        for gate in graph.input_gates if kind == "ih" else graph.state_gates:
            columns = units.columns(gate, width) if kind == "hh" else width
            form = graph.forms.get((kind, gate))
            if form is not None:
                shapes = FORMS[form.kind].parameters(form.number, units.rows((gate,)), columns).values()
                specs += [
                    ParameterSpec(*each) for each in zip(stems_of(kind, gate, form), shapes, strict=True)
                ]
            elif gate in graph.apart(kind):
                specs.append(ParameterSpec(apart_stem(gate), (units.rows((gate,)), columns)))
    if bias:
        specs += [
            ParameterSpec(stem, (units.rows(biases),))
            for stem, biases in (("bias_ih", graph.input_biases), ("bias_hh", graph.state_biases))
            if biases
        ]
    if proj_size:
        specs.append(ParameterSpec("weight_hr", (proj_size, hidden_size)))
    specs += [ParameterSpec(name, (units.vector(name),)) for name in graph.vectors]
    specs += [ParameterSpec(name, ()) for name in graph.scalars]
    specs += [ParameterSpec(first_name(state), (units.state(state),)) for state in graph.learned_first]
    return tuple(specs)


class _UnitsAt:
    """The numbers of units of a graph at some H, a number or a formula."""

    def __init__(self, graph: StepGraph, hidden_size: Any) -> None:
        self._hidden = hidden_size
        self._widths = widths_of(graph) if graph.widths else None

    def rows(self, gates: tuple[str, ...]) -> Any:
        """The rows of some gates together."""
        if self._widths is None:
            return len(gates) * self._hidden
        return sum(self._widths.gates[gate].at(self._hidden) for gate in gates)

    def columns(self, gate: str, width: Any) -> Any:
        """Those of a gate's recurrent weight, `width` where all have H."""
        return width if self._widths is None else self._widths.columns[gate].at(self._hidden)

    def vector(self, name: str) -> Any:
        return self._hidden if self._widths is None else self._widths.vectors[name].at(self._hidden)

    def state(self, name: str) -> Any:
        return self._hidden if self._widths is None else self._widths.states[name].at(self._hidden)


def width_problem(
    graph: StepGraph, input_size: int, hidden_size: int, num_layers: int, directions: int
) -> str | None:
    """Why layers of these sizes cannot be, as a sentence; None if they can.

    A cell takes its input as it is, and that has another width; or a weight is made of others that have no such shape.
    """
    units = _UnitsAt(graph, hidden_size)
    for name, said in graph.widths:
        if said.misfit(hidden_size):
            what = name or "the output"
            return f"{what} of {graph.name} has {said} units; got hidden_size={hidden_size}, no multiple of {said.per}."
    below = directions * output_sizes(graph, hidden_size)[0]
    for (kind, gate), form in graph.forms.items():
        for width in (
            (input_size, *(below,) * (num_layers > 1))
            if kind == "ih"
            else (units.columns(gate, hidden_size),)
        ):
            misfit = FORMS[form.kind].misfit(form.number, units.rows((gate,)), width)
            if misfit is not None:
                rows = f"({units.rows((gate,))}, {width})"
                return f"The weight of the gate {gate} of {graph.name} has shape {rows}, and is made of {misfit}."
    parts, name = graph.input_parts, graph.name
    wanted = len(parts) * hidden_size
    if not parts or (input_size == wanted and (num_layers == 1 or below == wanted)):
        return None
    if parts == (RAW,):
        takes = f"{name} takes x itself, unit by unit, so x has as many numbers as the state"
        linear = f"a torch.nn.Linear({input_size}, {hidden_size}) before the layer"
        remedy = f"hidden_size={input_size}, {linear}, or a gate of x, its projection, in the equation"
    else:
        gates = ", ".join(part.removeprefix(ready_part("")) for part in parts)
        takes = f"{name} takes the gates {gates} of x ready, hidden_size numbers each, {wanted} together"
        remedy = f"input_size={wanted}, and what makes these numbers before the layer"
    if input_size != wanted:
        return f"{takes}; got input_size={input_size} and hidden_size={hidden_size}. Take {remedy}.{_line(graph)}"
    return (
        f"{takes}; the second layer is given {below}, the output of the first. Take num_layers=1, and a layer of its "
        f"own with a torch.nn.Linear({below}, {wanted}) before it for each further one.{_line(graph)}"
    )


def _line(graph: StepGraph) -> str:
    """The line of the cell that takes its input as it is, where it is known."""
    users = [node for node in graph.nodes if graph.part_nodes.intersection(node.inputs)]
    return f"\n{users[0].source}" if users and users[0].source else ""


# Of a bias with gates that have none: its stem, and for each gate its number among those that have one, or None.
PartialBias = tuple[str, tuple[int | None, ...]]


def partial_biases(graph: StepGraph) -> tuple[PartialBias, ...]:
    """The biases whose parameters lack rows that kernels take."""
    kinds = (
        ("bias_ih", graph.input_gates, graph.input_biases),
        ("bias_hh", graph.state_gates, graph.state_biases),
    )
    return tuple(
        (stem, tuple(biases.index(gate) if gate in biases else None for gate in gates))
        for stem, gates, biases in kinds
        if gates != biases
    )


class Derived(NamedTuple):
    """A weight that kernels take, where gates have weights that are made of others.

    gates: in the order of its rows, of each the form's kind, its number, and the stems of the parameters that it is
    made of; for one that is learned as it is an empty kind, and its number among those.
    """

    stem: str
    gates: tuple[tuple[str, float | str, tuple[str, ...]], ...]


class Filling(NamedTuple):
    """How kernels' weights are made of a layer's parameters, where these are others. Plain values."""

    derived: tuple[Derived, ...]
    partial: tuple[PartialBias, ...]
    hidden_size: int


def filling_of(graph: StepGraph, hidden_size: int, bias: bool) -> Filling | None:
    """That of a layer; None if kernels take its parameters."""
    derived = tuple(
        Derived(f"weight_{kind}", tuple(_source(graph, kind, gate) for gate in gates))
        for kind, gates in (("ih", graph.input_gates), ("hh", graph.state_gates))
        if graph.row_gates(kind) != gates
    )
    partial = partial_biases(graph) if bias else ()
    return Filling(derived, partial, hidden_size) if derived or partial else None


def _source(graph: StepGraph, kind: str, gate: str) -> tuple[str, float | str, tuple[str, ...]]:
    form = graph.forms.get((kind, gate))
    if form is None:
        return "", graph.row_gates(kind).index(gate), ()
    return form.kind, form.number, stems_of(kind, gate, form)


def recurrent_columns(graph: StepGraph, hidden_size: int) -> dict[str, int]:
    """The number of columns of each gate's recurrent weight."""
    units = _UnitsAt(graph, hidden_size)
    return {gate: units.columns(gate, hidden_size) for gate in graph.state_gates}


def state_sizes(graph: StepGraph, hidden_size: int, proj_size: int = 0) -> tuple[int, ...]:
    """The size of each state: the hidden size, but for a projected first state and those of other widths."""
    units = _UnitsAt(graph, hidden_size)
    first, *others = (units.state(state) for state in graph.states)
    return (proj_size or first, *others)


def output_sizes(graph: StepGraph, hidden_size: int, proj_size: int = 0) -> tuple[int, ...]:
    """The size of each output, of one direction."""
    if not graph.widths:
        return (proj_size or hidden_size,) * (1 + len(graph.others))
    return tuple(units.at(hidden_size) for units in widths_of(graph).outputs)
