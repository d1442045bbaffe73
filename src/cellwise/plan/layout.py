"""Which parameters a layer of a cell has, their names, shapes and order. Said here once, for layers and backends."""

from __future__ import annotations

from dataclasses import dataclass

from cellwise.graph import StepGraph


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
    """The parameters in the order of torch.nn: weights (G*H, D) and (G*H, H), biases (G*H,), projection, then own."""
    rows = [("ih", len(graph.input_gates) * hidden_size, input_size)]
    rows += [("hh", len(graph.state_gates) * hidden_size, proj_size or hidden_size)]
    rows = [row for row in rows if row[1]]
    specs = [ParameterSpec(f"weight_{kind}", (height, width)) for kind, height, width in rows]
    if bias:
        specs += [ParameterSpec(f"bias_{kind}", (height,)) for kind, height, _ in rows]
    if proj_size:
        specs.append(ParameterSpec("weight_hr", (proj_size, hidden_size)))
    specs += [ParameterSpec(name, (hidden_size,)) for name in graph.vectors]
    specs += [ParameterSpec(name, ()) for name in graph.scalars]
    return tuple(specs)


def state_sizes(graph: StepGraph, hidden_size: int, proj_size: int = 0) -> tuple[int, ...]:
    """The size of each state: the hidden size, but for a projected first state."""
    first, *others = (hidden_size for _ in graph.states)
    return (proj_size or first, *others)
