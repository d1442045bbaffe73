"""Which parameters a layer of a cell has, their names, shapes and order; and the weights that its kernels take.

Said here once, for layers and backends. The two are the same but for gates without a bias, which kernels do not know:
they are given zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

from cellwise.graph import StepGraph
from cellwise.graph.expr import RAW, ready_part


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
    """The parameters in the order of torch.nn: weights (G*H, D) and (G*H, H), biases (G*H,), projection, then own.

    G counts the gates that are asked for, of the input and of states; for a bias those that have one.
    """
    kinds = (
        ("ih", graph.input_gates, graph.input_biases, input_size),
        ("hh", graph.state_gates, graph.state_biases, proj_size or hidden_size),
    )
    specs = [
        ParameterSpec(f"weight_{kind}", (len(gates) * hidden_size, width))
        for kind, gates, _, width in kinds
        if gates
    ]
    if bias:
        specs += [
            ParameterSpec(f"bias_{kind}", (len(biases) * hidden_size,))
            for kind, _, biases, _ in kinds
            if biases
        ]
    if proj_size:
        specs.append(ParameterSpec("weight_hr", (proj_size, hidden_size)))
    specs += [ParameterSpec(name, (hidden_size,)) for name in graph.vectors]
    specs += [ParameterSpec(name, ()) for name in graph.scalars]
    return tuple(specs)


def width_problem(
    graph: StepGraph, input_size: int, hidden_size: int, num_layers: int, directions: int
) -> str | None:
    """Why layers of these sizes cannot take parts of their input as they are, as a sentence; None if they can."""
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


def state_sizes(graph: StepGraph, hidden_size: int, proj_size: int = 0) -> tuple[int, ...]:
    """The size of each state: the hidden size, but for a projected first state."""
    first, *others = (hidden_size for _ in graph.states)
    return (proj_size or first, *others)
