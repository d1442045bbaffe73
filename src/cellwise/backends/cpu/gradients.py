"""The gradients of weights and of the input: products over all steps at once, from the gradients at the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cellwise.backends.cpu.engine import Engine


def weight_gradients(
    engine: Engine,
    x: Tensor,
    weights: Mapping[str, Tensor],
    tape: Tensor,
    gates: Tensor,
    arrays: Mapping[str, Tensor],
    hidden: int,
) -> dict[str, Tensor]:
    """The products over all steps at once: gradients at the weights and at x."""
    plan, graph = engine.plan, engine.graph
    found: dict[str, Tensor] = {}
    biases = arrays["bias sums"].sum(0)[:, :hidden]
    at_input = dict(plan.inputs)
    if graph.input_gates:
        columns = [at_input[gate] for gate in graph.input_gates]
        gradient = _columns(gates, columns, hidden)
        found["weight_ih"] = gradient.t() @ x
        found["x"] = gradient @ weights["weight_ih"]
        found["bias_ih"] = biases[columns].reshape(-1)
    else:
        found["x"] = torch.zeros_like(x)
    if graph.state_gates:
        found["weight_hh"] = weights["weight_hh"].new_zeros(len(graph.state_gates), hidden, hidden)
        found["bias_hh"] = biases.new_zeros(len(graph.state_gates), hidden)
        for operand, group in _by_operand(plan.products).items():
            places = [graph.state_gates.index(gate) for gate, _ in group]
            columns = [column for _, column in group]
            product = _columns(gates, columns, hidden).t() @ tape[:, operand, :hidden]
            for i, place in enumerate(places):
                found["weight_hh"][place] += product[i * hidden : (i + 1) * hidden]
                found["bias_hh"][place] += biases[columns[i]]
        found["weight_hh"] = found["weight_hh"].flatten(0, 1)
        found["bias_hh"] = found["bias_hh"].flatten()
    sums = arrays["sums"].sum(0)[:, :hidden]
    for column, name in enumerate(plan.parameters):
        found[name] = sums[column].sum() if name in graph.scalars else sums[column].clone()
    return found


def _by_operand(products: Sequence[tuple[str, int, int]]) -> dict[int, list[tuple[str, int]]]:
    groups: dict[int, list[tuple[str, int]]] = {}
    for gate, column, operand in products:
        groups.setdefault(operand, []).append((gate, column))
    return {operand: sorted(group, key=lambda each: each[1]) for operand, group in groups.items()}


def _columns(gates: Tensor, columns: list[int], hidden: int) -> Tensor:
    """Some columns of (N, columns, padded) as (N, len(columns) * H), without a copy where they lie side by side."""
    first = columns[0]
    if columns == list(range(first, first + len(columns))):
        chosen = gates[:, first : first + len(columns), :hidden]
    else:
        chosen = gates[:, columns, :hidden]
    if gates.shape[-1] == hidden and chosen.stride(1) == hidden:
        return chosen.as_strided((len(gates), len(columns) * hidden), (chosen.stride(0), 1))
    return chosen.reshape(len(gates), len(columns) * hidden)
