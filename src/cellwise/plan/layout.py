"""Which parameters a layer of a cell has, their names, shapes and order. Said here once, for layers and backends."""

from __future__ import annotations

from dataclasses import dataclass

from cellwise.plan.sequence_plan import SequencePlan


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of one layer in one direction. `stem` is its name without the layer's suffix."""

    stem: str
    shape: tuple[int, ...]

    def name(self, layer: int, reverse: bool) -> str:
        return f"{self.stem}_l{layer}{'_reverse' if reverse else ''}"


def parameter_layout(
    plan: SequencePlan, input_size: int, hidden_size: int, bias: bool, proj_size: int = 0
) -> tuple[ParameterSpec, ...]:
    """The parameters in the order of torch.nn: weights (G*H, D) and (G*H, H), biases (G*H,), projection, then own."""
    rows = [("ih", len(plan.input_gates) * hidden_size, input_size)]
    rows += [("hh", len(plan.state_gates) * hidden_size, proj_size or hidden_size)]
    rows = [row for row in rows if row[1]]
    specs = [ParameterSpec(f"weight_{kind}", (height, width)) for kind, height, width in rows]
    if bias:
        specs += [ParameterSpec(f"bias_{kind}", (height,)) for kind, height, _ in rows]
    if proj_size:
        specs.append(ParameterSpec("weight_hr", (proj_size, hidden_size)))
    specs += [ParameterSpec(name, (hidden_size,)) for name in plan.graph.vectors]
    specs += [ParameterSpec(name, ()) for name in plan.graph.scalars]
    return tuple(specs)


def state_sizes(plan: SequencePlan, hidden_size: int, proj_size: int = 0) -> tuple[int, ...]:
    """The size of each state: the hidden size, but for a projected first state."""
    first, *others = (hidden_size for _ in plan.graph.states)
    return (proj_size or first, *others)
