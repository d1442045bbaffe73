"""Which inputs a prediction depends on: the gradient of predictions with respect to every earlier input.

In the way of Madsen, "Visualizing memorization in RNNs" (Distill, 2019). One walk backward through time serves all
predictions at once: their gradients are the rows of one matrix, which each step multiplies by the transposed Jacobian
of the cell. The equations of that step are the derivative of the definition, the same graph that the compiled
kernels are made from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise.graph import Node
from cellwise.graph.expr import postorder
from cellwise.graph.ops import CONSTANT, Kind, constant_tensor
from cellwise.passes.differentiate import (
    GRADIENT,
    OUTPUT,
    PULLBACK,
    SHARE,
    Derivative,
    arriving_outputs,
    differentiate,
)
from cellwise.understand.trace.recording import (
    LayerRecording,
    Recording,
    evaluate_step,
    input_values,
    leaf_values,
)

__all__ = ["input_gradients", "sensitivity"]

Take = Callable[[int, Tensor], None]


def sensitivity(recording: Recording, seeds: Tensor) -> Tensor:
    """How strongly each prediction depends on each input: the norm of its gradient there, (K, T, T).

    seeds (K, T, H): the gradient of K predictions made at each step with respect to the last layer's output at that
    step. Entry [k, s, t] is for prediction k of step s and the input of step t; 0 where t > s.
    """
    K, T, _ = seeds.shape
    norms = seeds.new_zeros(K, T, T)

    def take(t: int, gradients: Tensor) -> None:
        norms[:, t:, t] = gradients.norm(dim=-1)

    input_gradients(recording, seeds, take)
    return norms


def input_gradients(recording: Recording, seeds: Tensor, take: Take) -> None:
    """Call `take(t, gradients)` for t from the last step to the first; gradients (K, T - t, D) are those of the
    predictions of the steps t, t + 1, ... with respect to the input of step t. `seeds` as for `sensitivity`.
    """
    K, T, H = seeds.shape
    with torch.no_grad():
        walks = [_BackwardWalk(layer) for layer in recording.layers]
        for t in range(T - 1, -1, -1):
            # At step t only its own predictions look at the top layer's output directly; the others arrive through
            # the states. To a lower layer they come from the layer above it, at every step.
            arriving = torch.cat([seeds[:, t : t + 1], seeds.new_zeros(K, T - t - 1, H)], dim=1)
            for walk in reversed(walks):
                arriving = walk.step(t, arriving)
            take(t, arriving)


@dataclass(frozen=True)
class _Wanted:
    """The nodes of a derivative that a walk needs, inputs before users."""

    derivative: Derivative
    order: tuple[Node, ...]

    @classmethod
    def of(cls, layer: LayerRecording) -> _Wanted:
        derivative = differentiate(layer.graph)
        roots = (*derivative.inputs.values(), *derivative.states.values())
        return cls(derivative, tuple(postorder(roots)))


class _BackwardWalk:
    """One layer, from its last step to its first. It holds the gradients at the states before the step, by state:
    (K, steps, H) for the predictions of the steps met so far."""

    def __init__(self, layer: LayerRecording) -> None:
        self.layer = layer
        self.wanted = _Wanted.of(layer)
        self.fixed = leaf_values(layer.graph, layer.weights, layer.inputs)
        self.fixed |= {
            node: constant_tensor(node.attribute, layer.inputs)
            for node in self.wanted.order
            if node.op is CONSTANT and node not in self.fixed
        }
        self.inputs = input_values(layer.graph, layer.weights, layer.inputs)
        self.states: dict[str, Tensor] = {}

    def step(self, t: int, at_output: Tensor) -> Tensor:
        """From gradients at the output of step t, (K, T - t, H), to those at its input, (K, T - t, D)."""
        layer, derivative = self.layer, self.wanted.derivative
        values = self.fixed | {node: whole[t : t + 1] for node, whole in self.inputs.items()}
        evaluate_step(layer.graph, layer.weights, values, {k: v[t : t + 1] for k, v in layer.before.items()})
        for node in self.wanted.order:
            if node not in values:
                values[node] = self._value(node, values, at_output)
        # A prediction of this very step meets the state for the first time: its gradient so far is zero.
        self.states = {name: values[node].expand_as(at_output) for name, node in derivative.states.items()}
        result = at_output.new_zeros(*at_output.shape[:-1], layer.inputs.shape[1])
        for node, gradient in derivative.inputs.items():
            result += values[gradient].expand_as(at_output) @ layer.weights.inputs[str(node.attribute)]
        return result

    def _value(self, node: Node, values: dict[Node, Tensor], at_output: Tensor) -> Tensor:
        if node.op is GRADIENT:
            if node.attribute == OUTPUT:
                return at_output
            if node.attribute in arriving_outputs(self.layer.graph):
                return torch.zeros_like(at_output)  # a prediction reads the first output
            later = self.states.get(str(node.attribute))
            if later is None:
                return torch.zeros_like(at_output)
            return torch.cat([later.new_zeros(len(later), 1, later.shape[-1]), later], dim=1)
        if node.op is PULLBACK:
            gates = str(node.attribute).split()
            terms = [
                values[each].expand_as(at_output) @ self.layer.weights.recurrent[gate]
                for each, gate in zip(node.inputs, gates, strict=True)
            ]
            return torch.stack(terms).sum(0)
        if node.op is SHARE:
            return values[node.inputs[0]] / at_output.shape[-1]
        operands = [values[each] for each in node.inputs]
        if node.op.kind is Kind.REDUCTION:  # of what may be the same for all units
            operands = [each.expand(*each.shape[:-1], at_output.shape[-1]) for each in operands]
        assert node.op.torch is not None
        return node.op.torch(*operands)
