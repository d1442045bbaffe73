"""Which parameters a layer of a cell has, their names, shapes and order; and the weights that its kernels take.

Said here once, for layers and backends. The two are the same but for gates without a bias, which kernels do not know:
they are given zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

from cellwise.graph import StepGraph
from cellwise.graph.expr import first_name


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
    specs += [ParameterSpec(first_name(state), (hidden_size,)) for state in graph.learned_first]
    return tuple(specs)


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
