"""What goes on inside a recurrent layer: every state and every named value of its cell, at every step.

The values come from the cell's own definition, walked node by node, so that any cell is recorded: the gates of an
LSTM, and the variables of a cell that somebody wrote this morning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cellwise.graph import Node, Shape, StepGraph
from cellwise.graph.expr import first_name
from cellwise.graph.ops import BESIDE, CONSTANT, INPUT, PROJECT, SCALAR, STATE, VECTOR, constant_tensor
from cellwise.graph.units import HIDDEN
from cellwise.graph.widths import widths_of
from cellwise.nn.beside import rows_beside, sizes_beside
from cellwise.nn.biases import filled
from cellwise.nn.definition import info_of
from cellwise.nn.padding import true_blocks
from cellwise.nn.recurrent import RecurrentLayer
from cellwise.plan import state_sizes
from cellwise.runtime.sequences import form_of
from cellwise.understand.trace.errors import TraceError

__all__ = ["LayerRecording", "LayerWeights", "Recording", "Signal", "record"]

Kind = Literal["state", "gate", "value"]


@dataclass(frozen=True, eq=False)
class Signal:
    """One named value of the cell over time, (T, H).

    kind: "state" is carried through time, a "gate" lies between 0 and 1 by its equation, a "value" is any other
    variable of the definition. bounds: what its last function allows, or None.
    """

    name: str
    kind: Kind
    values: Tensor
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """The parameters of one layer, gate by gate: `inputs` (H, D), `recurrent` (H, H), biases (H,), own ones by name.

    `beside` is what it was given beside x, (T, H) or (T, 1).
    """

    inputs: dict[str, Tensor]
    input_biases: dict[str, Tensor]
    recurrent: dict[str, Tensor]
    recurrent_biases: dict[str, Tensor]
    own: dict[str, Tensor]
    beside: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LayerRecording:
    """One layer over T steps.

    inputs (T, D); before: each state as the step found it, (T, H); output (T, H); signals: states first, then the
    variables of the definition in its own order.
    """

    graph: StepGraph
    weights: LayerWeights
    inputs: Tensor
    before: dict[str, Tensor]
    output: Tensor
    signals: tuple[Signal, ...]

    def signal(self, name: str) -> Signal:
        """The signal of this name.

        Raises:
            KeyError: there is none.
        """
        return next((each for each in self.signals if each.name == name), None) or _no_signal(self, name)


@dataclass(frozen=True, eq=False)
class Recording:
    """All layers of a stack over T steps, the lowest first."""

    layers: tuple[LayerRecording, ...]

    @property
    def output(self) -> Tensor:
        """The output of the last layer, (T, H)."""
        return self.layers[-1].output

    def __len__(self) -> int:
        return len(self.output)


def record(layer: RecurrentLayer, x: Tensor, **beside: Tensor) -> Recording:
    """Run a layer over one sequence x (T, D), from where its states begin, and keep everything that has a name.

    Dropout is off. The output equals that of `layer(x, **beside)` in evaluation.

    Args:
        beside: the inputs beside x of a cell that has some, (T,) or (T, H).

    Raises:
        TraceError: the layer is bidirectional or has projections, or x is not one sequence of at least one step.

    >>> from cellwise import LSTM
    >>> recording = record(LSTM(2, 3), torch.randn(5, 2))
    >>> [signal.name for signal in recording.layers[0].signals]
    ['h', 'c', 'i', 'f', 'g', 'o']
    >>> recording.layers[0].signal("f").values.shape
    torch.Size([5, 3])
    """
    if layer.bidirectional or layer.proj_size:
        what = "bidirectional" if layer.bidirectional else "projected (proj_size)"
        raise TraceError(
            f"a {what} layer cannot be traced; trace one that runs forward only, without projection"
        )
    if x.dim() != 2 or x.shape[1] != layer.input_size or len(x) == 0:
        raise TraceError(
            f"a trace needs one sequence (T, {layer.input_size}) of at least one step, not {tuple(x.shape)}"
        )
    recorded = []
    form = form_of(x.unsqueeze(1), False, None, None)
    sizes = sizes_beside(layer.hidden_size, info_of(*layer._definition()).padding)
    rows = rows_beside(layer.cell, beside, form, sizes, unbatched=True)
    with torch.no_grad():
        for number in range(layer.num_layers):
            weights = replace(_weights(layer, number), beside=rows)
            recorded.append(_record_layer(layer.cell.graph, weights, x, layer.hidden_size))
            x = recorded[-1].output
    return Recording(tuple(recorded))


def _weights(layer: RecurrentLayer, number: int) -> LayerWeights:
    graph = layer.cell.graph

    # Whole, whatever they are made of.
    info = info_of(*layer._definition())
    made = filled(layer._weights(info.names), info.filling)[number]
    true = {} if info.padding is None else true_blocks(made.by_stem, info.padding)
    units = widths_of(graph).gates

    def blocks(stem: str, gates: tuple[str, ...]) -> dict[str, Tensor]:
        if stem in true:
            return {gate: block.detach() for gate, block in zip(gates, true[stem], strict=True)}
        named = getattr(layer, f"{stem}_l{number}", None) if stem.startswith("bias") else made.get(stem)
        whole = named if gates else None
        sizes = [units[gate].at(layer.hidden_size) for gate in gates]
        return {} if whole is None else dict(zip(gates, whole.detach().split(sizes), strict=True))

    firsts = map(first_name, layer.learned_first)
    names = (*graph.vectors, *graph.scalars, *firsts)
    own = {name: getattr(layer, f"{name}_l{number}").detach() for name in names}
    return LayerWeights(
        blocks("weight_ih", graph.input_gates),
        blocks("bias_ih", graph.input_biases),
        blocks("weight_hh", graph.state_gates),
        blocks("bias_hh", graph.state_biases),
        own,
    )


def _record_layer(graph: StepGraph, weights: LayerWeights, x: Tensor, hidden_size: int) -> LayerRecording:
    sizes = dict(zip(graph.states, state_sizes(graph, hidden_size), strict=True))
    states = {
        name: weights.own.get(first_name(name), x.new_zeros(size)).unsqueeze(0)
        for name, size in sizes.items()
    }
    fixed = leaf_values(graph, weights, x)
    met: dict[str, list[Tensor]] = {name: [] for name in graph.states}
    inputs = input_values(graph, weights, x)
    for t in range(len(x)):
        for name, value in states.items():
            met[name].append(value)
        values = fixed | {node: whole[t : t + 1] for node, whole in inputs.items()}
        evaluate_step(graph, weights, values, states)
        states = {
            name: values[node].expand(1, sizes[name])
            for name, node in zip(graph.states, graph.new_states, strict=True)
        }
    before = {name: torch.cat(pieces) for name, pieces in met.items()}
    # Now that every state is known, all steps are one batch: each named value of all of them in one go.
    values = fixed | inputs
    evaluate_step(graph, weights, values, before)
    return LayerRecording(
        graph, weights, x, before, values[graph.output], tuple(_signals(graph, values, len(x), hidden_size))
    )


def _signals(graph: StepGraph, values: dict[Node, Tensor], T: int, H: int) -> Iterator[Signal]:
    shown: dict[Node, str] = {}
    units = widths_of(graph).values

    def size(node: Node) -> int:
        return int(units.get(node, HIDDEN).at(H))

    for name, node in zip(graph.states, graph.new_states, strict=True):
        shown[node] = name
        yield Signal(name, "state", values[node].expand(T, size(node)), _bounds(node))
    named = [(node, name) for node, name in graph.names if node in values and name not in graph.states]
    if graph.outputs:
        named += zip((graph.output, *graph.others), graph.outputs, strict=True)
    elif not graph.output_is_state:
        named.append((graph.output, "y"))
    for node, name in named:
        if node.shape is Shape.BATCH and node not in shown:
            shown[node] = name
            kind: Kind = "gate" if node.op.range == (0.0, 1.0) else "value"
            shown_values = values[node].expand(T, size(node)).to(values[graph.output])
            yield Signal(name, kind, shown_values, _bounds(node))


def _bounds(node: Node) -> tuple[float, float] | None:
    """What a value's last function allows, where it allows only so much to both sides."""
    bounds = node.op.range
    return bounds if bounds is not None and all(map(math.isfinite, bounds)) else None


def leaf_values(graph: StepGraph, weights: LayerWeights, like: Tensor) -> dict[Node, Tensor]:
    """Own parameters and constants, which are the same at every step."""
    values = {node: weights.own[str(node.attribute)] for op in (VECTOR, SCALAR) for node in graph.of(op)}
    return values | {node: constant_tensor(node.attribute, like) for node in graph.of(CONSTANT)}


def input_values(graph: StepGraph, weights: LayerWeights, x: Tensor) -> dict[Node, Tensor]:
    """What each gate is given by the input x (T, D): W_i x + b_i, (T, H); and what stands beside x."""
    projected = {
        node: F.linear(x, weights.inputs[gate], weights.input_biases.get(gate))
        for node in graph.of(INPUT)
        for gate in (str(node.attribute),)
    }
    parts = graph.input_parts
    beside = weights.beside | dict(zip(parts, x.chunk(max(1, len(parts)), dim=-1), strict=False))
    return projected | {node: beside[str(node.attribute)] for node in graph.of(BESIDE)}


def evaluate_step(
    graph: StepGraph, weights: LayerWeights, values: dict[Node, Tensor], states: dict[str, Tensor]
) -> None:
    """Add the value of every node to `values`, which holds the leaves apart from the states (rows, H)."""
    for node in graph.nodes:
        if node in values:
            continue
        if node.op is STATE:
            values[node] = states[str(node.attribute)]
        elif node.op is PROJECT:
            gate = str(node.attribute)
            bias = weights.recurrent_biases.get(gate)
            values[node] = F.linear(values[node.inputs[0]], weights.recurrent[gate], bias)
        else:
            assert node.op.torch is not None
            values[node] = node.op.torch(*(values[each] for each in node.inputs))


def _no_signal(recording: LayerRecording, name: str) -> Signal:
    raise KeyError(f"{name!r}; recorded are {', '.join(each.name for each in recording.signals)}")
