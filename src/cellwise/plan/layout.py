"""Which parameters a layer of a cell has, their names, shapes and order; and the weights that its kernels take.

Said here once, for layers and backends. The two are the same but for gates without a bias, where kernels are given
zeros, and for weights that are made of others, where they are given what is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cellwise.graph import StepGraph
from cellwise.graph.expr import RAW, first_name, ready_part
from cellwise.graph.forms import FORMS, stems_of


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
    stand those of which the weights of other gates are made (`StepGraph.forms`), by the names of these.
    """
    specs = []
    for kind, width in (("ih", input_size), ("hh", proj_size or hidden_size)):
        gates = graph.row_gates(kind)
        specs += [ParameterSpec(f"weight_{kind}", (len(gates) * hidden_size, width))] if gates else []
        for (of, gate), form in graph.forms.items():
            if of == kind:
                shapes = FORMS[form.kind].parameters(form.number, hidden_size, width).values()
                stems = stems_of(kind, gate, form)
                specs += [ParameterSpec(*each) for each in zip(stems, shapes, strict=True)]
    if bias:
        specs += [
            ParameterSpec(stem, (len(biases) * hidden_size,))
            for stem, biases in (("bias_ih", graph.input_biases), ("bias_hh", graph.state_biases))
            if biases
        ]
    if proj_size:
        specs.append(ParameterSpec("weight_hr", (proj_size, hidden_size)))
    specs += [ParameterSpec(name, (hidden_size,)) for name in graph.vectors]
    specs += [ParameterSpec(name, ()) for name in graph.scalars]
    specs += [ParameterSpec(first_name(state), (hidden_size,)) for state in graph.learned_first]
    return tuple(specs)


def width_problem(
    graph: StepGraph, input_size: int, hidden_size: int, num_layers: int, directions: int
) -> str | None:
    """Why layers of these sizes cannot be, as a sentence; None if they can.

    A cell takes its input as it is, and that has another width; or a weight is made of others that have no such shape.
    """
    for (kind, gate), form in graph.forms.items():
        for width in (
            (input_size, *(directions * hidden_size,) * (num_layers > 1)) if kind == "ih" else (hidden_size,)
        ):
            misfit = FORMS[form.kind].misfit(form.number, hidden_size, width)
            if misfit is not None:
                rows = f"({hidden_size}, {width})"
                return f"The weight of the gate {gate} of {graph.name} has shape {rows}, and is made of {misfit}."
    parts, name = graph.input_parts, graph.name
    wanted = len(parts) * hidden_size
    below = directions * hidden_size
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
    gates: tuple[tuple[str, float, tuple[str, ...]], ...]


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


def _source(graph: StepGraph, kind: str, gate: str) -> tuple[str, float, tuple[str, ...]]:
    form = graph.forms.get((kind, gate))
    if form is None:
        return "", graph.row_gates(kind).index(gate), ()
    return form.kind, form.number, stems_of(kind, gate, form)


def state_sizes(graph: StepGraph, hidden_size: int, proj_size: int = 0) -> tuple[int, ...]:
    """The size of each state: the hidden size, but for a projected first state."""
    first, *others = (hidden_size for _ in graph.states)
    return (proj_size or first, *others)
