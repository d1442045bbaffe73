"""The slowest way to run a layer: one row, one step and one equation at a time.

It shares with the backends the traced equations and the meaning of each op, and nothing else: no batching, no plan, no
stages, no hoisting, no packing. What a backend computes must agree with it.

>>> from cellwise import Recurrent
>>> layer = Recurrent("gru", 3, 4)
>>> output, (h,) = run_naively(layer, torch.zeros(7, 5, 3))
>>> output.shape, h.shape
(torch.Size([7, 5, 4]), torch.Size([1, 5, 4]))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from cellwise.graph import Node
from cellwise.graph.forms import apart_stem, made, stems_of
from cellwise.graph.ops import BESIDE, CONSTANT, INPUT, PROJECT, SCALAR, STATE, VECTOR, Kind
from cellwise.graph.units import HIDDEN, Units
from cellwise.graph.widths import widths_of
from cellwise.nn.recurrent import RecurrentLayer
from cellwise.runtime.outputs import by_name

States = tuple[Tensor, ...]


def run_naively(
    layer: RecurrentLayer,
    x: Tensor,
    states: Sequence[Tensor] = (),
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    beside: Mapping[str, Tensor] = MappingProxyType({}),
) -> tuple[Any, States]:
    """Outputs and final states of a layer in evaluation; of several outputs a tuple by their names.

    Args:
        x: (T, B, D), with `batch_first` (B, T, D), or (T, D).
        states: one (L * directions, B, size) per state of the cell, or none for those that a layer begins with; without
            B for one sequence.
        lengths: (B,), or () for one sequence.
        resets: bool, (T, B), with `batch_first` (B, T), or (T,).
        beside: the inputs beside x, (T, B) or (T, B, H), with `batch_first` (B, T, ...), or (T, ...).
    """
    if x.dim() == 2:
        batch_dim = 0 if layer.batch_first else 1
        output, finals = run_naively(
            layer,
            x.unsqueeze(batch_dim),
            [state.unsqueeze(1) for state in states],
            None if lengths is None else lengths.reshape(1),
            None if resets is None else resets.unsqueeze(batch_dim),
            {name: value.unsqueeze(batch_dim) for name, value in beside.items()},
        )
        finals = tuple(final.squeeze(1) for final in finals)
        if isinstance(output, tuple):
            return type(output)(*(each.squeeze(batch_dim) for each in output)), finals
        return output.squeeze(batch_dim), finals
    if layer.batch_first:
        turned = None if resets is None else resets.t()
        rest = {name: value.transpose(0, 1) for name, value in beside.items()}
        output, finals = _rows(layer, x.transpose(0, 1), states, lengths, turned, rest)
        output = output.transpose(0, 1)
    else:
        output, finals = _rows(layer, x, states, lengths, resets, beside)
    names = layer.cell.graph.outputs
    sizes = tuple((2 if layer.bidirectional else 1) * size for size in _output_sizes(layer))
    return by_name(output, names, sizes) if names else output, finals


def _rows(
    layer: RecurrentLayer,
    x: Tensor,
    states: Sequence[Tensor],
    lengths: Tensor | None,
    resets: Tensor | None,
    beside: Mapping[str, Tensor],
) -> tuple[Tensor, States]:
    steps, batch = x.shape[:2]
    directions = 2 if layer.bidirectional else 1
    suffixes = _suffixes(layer)
    firsts = [_first_states(layer, suffix, x) for suffix in suffixes]
    given = states or [
        torch.stack(each).unsqueeze(1).expand(-1, batch, -1) for each in zip(*firsts, strict=True)
    ]
    output = x.new_zeros(steps, batch, directions * sum(_output_sizes(layer)))
    finals = [torch.empty_like(state) for state in given]
    for b in range(batch):
        length = steps if lengths is None else int(lengths[b])
        row_resets = [False] * length if resets is None else resets[:length, b].tolist()
        rest = {name: value[:length, b] for name, value in beside.items()}
        row, row_finals = _row(layer, x[:length, b], [state[:, b] for state in given], row_resets, rest)
        output[:length, b] = row
        for final, new in zip(finals, row_finals, strict=True):
            final[:, b] = new
    return output, tuple(finals)


def _suffixes(layer: RecurrentLayer) -> list[str]:
    directions = ("", "_reverse") if layer.bidirectional else ("",)
    return [f"_l{depth}{direction}" for depth in range(layer.num_layers) for direction in directions]


def _first_states(layer: RecurrentLayer, suffix: str, like: Tensor) -> States:
    """Where the states of one layer in one direction begin, (size,) each."""
    states = widths_of(layer.cell.graph).states.values()
    sizes = [units.at(layer.hidden_size) for units in states]
    sizes[0] = layer.proj_size or sizes[0]
    return tuple(
        getattr(layer, f"{state}0{suffix}") if state in layer.learned_first else like.new_zeros(size)
        for state, size in zip(layer.cell.states, sizes, strict=True)
    )


def _row(
    layer: RecurrentLayer,
    x: Tensor,
    states: Sequence[Tensor],
    resets: list[bool],
    beside: Mapping[str, Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """One sequence x (T, D) through all layers; states (L * directions, size)."""
    finals: list[States] = []
    sizes = _output_sizes(layer)
    for depth in range(layer.num_layers):
        sides = []
        for suffix in ("", "_reverse") if layer.bidirectional else ("",):
            carried = tuple(state[len(finals)] for state in states)
            outputs, carried = _one_way(layer, f"_l{depth}{suffix}", x, carried, resets, beside)
            sides.append(outputs)
            finals.append(carried)
        # Output by output, each with all directions; the next layer takes the first.
        parts = [
            torch.cat(each, dim=-1) for each in zip(*(side.split(sizes, -1) for side in sides), strict=True)
        ]
        x = parts[0]
    return torch.cat(parts, dim=-1), [torch.stack(each) for each in zip(*finals, strict=True)]


def _one_way(
    layer: RecurrentLayer,
    suffix: str,
    x: Tensor,
    carried: States,
    resets: list[bool],
    beside: Mapping[str, Tensor],
) -> tuple[Tensor, States]:
    backwards, firsts = suffix.endswith("_reverse"), _first_states(layer, suffix, x)
    outputs: list[Tensor] = [x.new_zeros(0)] * len(x)
    times = list(range(len(x)))
    for t in reversed(times) if backwards else times:
        if resets[t] and not backwards:
            carried = firsts
        now = {name: value[t] for name, value in beside.items()}
        outputs[t], carried = _step(layer, suffix, x[t], carried, now)
        # The boundary lies before step t in time, so backwards it is passed after that step.
        if resets[t] and backwards and t > 0:
            carried = firsts
    return torch.stack(outputs) if outputs else x.new_zeros(0, sum(_output_sizes(layer))), carried


def _output_sizes(layer: RecurrentLayer) -> list[int]:
    """The size of each output, of one direction."""
    if layer.proj_size:
        return [layer.proj_size]
    return [units.at(layer.hidden_size) for units in widths_of(layer.cell.graph).outputs]


def _step(
    layer: RecurrentLayer, suffix: str, x: Tensor, carried: States, beside: Mapping[str, Tensor]
) -> tuple[Tensor, States]:
    """One step of one row: x (D,), states (size,), beside x () or (units,)."""
    graph = layer.cell.graph
    widths = widths_of(graph)
    values: dict[Node, Tensor] = {}

    def expanded(value: Tensor, units: Units) -> Tensor:
        return value.expand(units.at(layer.hidden_size))

    def block(name: str, gates: tuple[str, ...], gate: str) -> Tensor:
        sizes = [widths.gates[each].at(layer.hidden_size) for each in gates]
        whole: Tensor = getattr(layer, f"{name}{suffix}")
        return whole.split(sizes)[gates.index(gate)]

    def weight(kind: str, gate: str) -> Tensor:
        form = graph.forms.get((kind, gate))
        if gate in graph.apart(kind):
            return getattr(layer, f"{apart_stem(gate)}{suffix}")
        if form is None:
            return block(f"weight_{kind}", graph.row_gates(kind), gate)
        made_of = [getattr(layer, f"{stem}{suffix}") for stem in stems_of(kind, gate, form)]
        return made(form, made_of, widths.gates[gate].at(layer.hidden_size), x)

    def affine(kind: str, gate: str, value: Tensor) -> Tensor:
        biases = graph.input_biases if kind == "ih" else graph.state_biases
        product = weight(kind, gate) @ value
        has_bias = layer.bias and gate in biases
        return product + block(f"bias_{kind}", biases, gate) if has_bias else product

    parts = graph.input_parts  # of x, as they are
    beside = {**beside, **dict(zip(parts, x.chunk(max(1, len(parts))), strict=False))}
    for node in graph.nodes:
        if node.op is INPUT:
            values[node] = affine("ih", str(node.attribute), x)
        elif node.op is PROJECT:
            gate = str(node.attribute)
            operand = values[node.inputs[0]]
            operand = operand if layer.proj_size else expanded(operand, widths.columns[gate])
            values[node] = affine("hh", gate, operand)
        elif node.op is STATE:
            values[node] = carried[graph.states.index(str(node.attribute))]
        elif node.op in (VECTOR, SCALAR):
            values[node] = getattr(layer, f"{node.attribute}{suffix}")
        elif node.op is BESIDE:
            # Where it meets several widths it is one number, and stays so until it meets them.
            units = widths.inputs.get(str(node.attribute), HIDDEN)
            value = beside[str(node.attribute)]
            values[node] = value if units is None else expanded(value, units)
        elif node.op is CONSTANT:
            assert isinstance(node.attribute, float)
            values[node] = torch.tensor(node.attribute, dtype=x.dtype)
        else:
            assert node.op.torch is not None
            operands = [values[each] for each in node.inputs]
            if node.op.kind is Kind.REDUCTION:
                operands = [expanded(operands[0], widths.values.get(node.inputs[0], HIDDEN))]
            values[node] = node.op.torch(*operands)
    outputs = [
        expanded(values[each], units)
        for each, units in zip((graph.output, *graph.others), widths.outputs, strict=True)
    ]
    pairs = zip(graph.new_states, widths.states.values(), strict=True)
    output, new = outputs[0], tuple(expanded(values[each], units) for each, units in pairs)
    if layer.proj_size:
        output = getattr(layer, f"weight_hr{suffix}") @ output
        new = (output, *new[1:])
    return torch.cat([output, *outputs[1:]]), new
