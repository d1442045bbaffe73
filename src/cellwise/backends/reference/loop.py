"""One layer in one direction: its equations, node by node, on torch tensors.

Nothing is changed in place and nothing depends on values, so autograd (twice), torch.func and torch.compile all
see ordinary torch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from cellwise.backends.base import Result, Sequences, Weights
from cellwise.graph import Node, StepGraph, evaluate
from cellwise.graph.ops import BESIDE, CONSTANT, DRAW, INPUT, PROJECT, SCALAR, STATE, VECTOR, constant_tensor

States = tuple[Tensor, ...]


def run_direction(
    graph: StepGraph, weights: Weights, sequences: Sequences, initial: States, reverse: bool
) -> Result:
    """Run over all steps. `initial` and the returned final states hold a tensor (B, size) per state of the cell.

    In reverse the steps run from the last to the first. A reset at step t stands between t - 1 and t in time for
    both directions, so that a row with resets equals its pieces run apart.
    """
    projection = weights.get("weight_hr")
    hidden = initial[0].shape[-1] if projection is None else projection.shape[1]
    fixed, per_step = _before(graph, weights, sequences, hidden)
    step = _Step(graph, weights, fixed)
    carry = _Carry(initial, sequences.batch_sizes, reverse)
    resets = sequences.resets.split(list(sequences.batch_sizes)) if sequences.resets is not None else None
    times = range(len(sequences.batch_sizes))
    outputs: list[Tensor] = []
    for t in reversed(times) if reverse else times:
        states = carry.enter(t)
        if resets is not None and not reverse:
            states = _zero(states, resets[t])
        output, states = step({node: pieces[t] for node, pieces in per_step.items()}, states)
        outputs.append(output)
        if resets is not None and reverse and t > 0:
            states = _zero(states, resets[t])
        carry.leave(states)
    final = carry.finish()
    if not outputs:
        return sequences.data.new_zeros(0, initial[0].shape[-1] * (1 + len(graph.others))), final
    return torch.cat(outputs[::-1] if reverse else outputs), final


def _zero(states: States, where: Tensor) -> States:
    return tuple(state.masked_fill(where.unsqueeze(-1), 0) for state in states)


def _before(
    graph: StepGraph, weights: Weights, sequences: Sequences, hidden: int
) -> tuple[dict[Node, Tensor], dict[Node, tuple[Tensor, ...]]]:
    """What needs no state: the input's projection and all that follows from it alone, for all steps at once."""
    values = dict(_leaves(graph, weights, sequences.data)) | _beside(graph, weights, sequences, hidden)
    weight = weights.get("weight_ih")
    if weight is not None:
        projected = F.linear(sequences.data, weight, weights.get("bias_ih"))
        pieces = projected.chunk(len(graph.input_gates), dim=-1)
        by_gate = dict(zip(graph.input_gates, pieces, strict=True))
        values.update((node, by_gate[str(node.attribute)]) for node in graph.of(INPUT))
    evaluate(graph.before_loop, values)
    per_step = {
        node: values[node].split(list(sequences.batch_sizes))
        for node in graph.into_loop
        if node.shape.has_rows
    }
    return {node: value for node, value in values.items() if not node.shape.has_rows}, per_step


def _beside(graph: StepGraph, weights: Weights, sequences: Sequences, hidden: int) -> dict[Node, Tensor]:
    """What is given beside x, a row for each valid step and a number for each unit."""
    once = {draw.name for draw in graph.draws if draw.per_sequence}
    values = {}
    for node in (*graph.of(BESIDE), *graph.of(DRAW)):
        rows = weights.by_stem[str(node.attribute)]
        if node.attribute in once:
            rows = torch.cat([rows[:0], *(rows[:count] for count in sequences.batch_sizes)])
        values[node] = rows.expand(-1, hidden)
    return values


def _leaves(graph: StepGraph, weights: Weights, like: Tensor) -> Iterable[tuple[Node, Tensor]]:
    for node in graph.nodes:
        if node.op in (VECTOR, SCALAR):
            yield node, weights.by_stem[str(node.attribute)]
        elif node.op is CONSTANT:
            yield node, constant_tensor(node.attribute, like)


class _Step:
    """One step of time. What has one operand is one product, whichever gate asks for it first."""

    def __init__(self, graph: StepGraph, weights: Weights, fixed: dict[Node, Tensor]) -> None:
        self.graph = graph
        self.fixed = fixed
        self.states = tuple((node, graph.states.index(str(node.attribute))) for node in graph.of(STATE))
        self.projection = weights.get("weight_hr")
        self.rows = {operand: _rows(graph, weights, nodes) for operand, nodes in graph.products.items()}

    def __call__(self, inputs: dict[Node, Tensor], states: States) -> tuple[Tensor, States]:
        values = {**self.fixed, **inputs, **{node: states[index] for node, index in self.states}}
        graph = self.graph
        for node in graph.in_loop:
            if node.op is PROJECT and node not in values:
                self._multiply(node.inputs[0], values)
            evaluate((node,), values)
        output, new = values[graph.output], tuple(values[node] for node in graph.new_states)
        if self.projection is not None:
            output = F.linear(output, self.projection)
            new = (output, *new[1:])
        if graph.others:
            output = torch.cat([output, *(values[node] for node in graph.others)], dim=-1)
        return output, new

    def _multiply(self, operand: Node, values: dict[Node, Tensor]) -> None:
        """Add to `values` all projections of an operand."""
        weight, bias = self.rows[operand]
        nodes = self.graph.products[operand]
        pieces = F.linear(values[operand], weight, bias).chunk(len(nodes), dim=-1)
        values.update(zip(nodes, pieces, strict=True))


def _rows(graph: StepGraph, weights: Weights, nodes: tuple[Node, ...]) -> tuple[Tensor, Tensor | None]:
    """The rows of the recurrent weight, and of its bias, for the projections of one operand."""
    weight, bias = weights.by_stem["weight_hh"], weights.get("bias_hh")
    gates = tuple(str(node.attribute) for node in nodes)
    if gates == graph.state_gates:
        return weight, bias
    indices = [graph.state_gates.index(gate) for gate in gates]
    count = len(graph.state_gates)

    def take(tensor: Tensor) -> Tensor:
        blocks = tensor.chunk(count)
        return torch.cat([blocks[index] for index in indices])

    return take(weight), None if bias is None else take(bias)


class _Carry:
    """The states between steps: rows join or leave where sequences begin or end."""

    def __init__(self, initial: States, batch_sizes: tuple[int, ...], reverse: bool) -> None:
        self.initial = initial
        self.batch_sizes = batch_sizes
        self.reverse = reverse
        # Backwards no row has begun; forwards all have, and those without any step leave at once.
        self.states = tuple(state[:0] for state in initial) if reverse else initial
        self.ended: list[States] = []

    def enter(self, t: int) -> States:
        """The states of the rows that have a step at time t."""
        before, now = self.states[0].shape[0], self.batch_sizes[t]
        if now > before:
            return tuple(
                torch.cat([state, first[before:now]])
                for state, first in zip(self.states, self.initial, strict=True)
            )
        if now < before:
            self.ended.append(tuple(state[now:] for state in self.states))
            return tuple(state[:now] for state in self.states)
        return self.states

    def leave(self, states: States) -> None:
        self.states = states

    def finish(self) -> States:
        """The final states of all rows."""
        if self.reverse:
            rest = tuple(state[self.states[0].shape[0] :] for state in self.initial)
            parts = [self.states, rest]
        else:
            parts = [self.states, *reversed(self.ended)]
        parts = [part for part in parts if part[0].shape[0]] or parts[:1]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(each) for each in zip(*parts, strict=True))
