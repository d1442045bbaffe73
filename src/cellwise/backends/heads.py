"""A layer whose units fall into heads, run as several of fewer units: one call of the same kernels for each.

Rows of weights, own vectors, states and what stands beside x are cut by units. What the calls give is put side by side
again; autograd adds up what they give back to the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cellwise.backends.base import Result, RunDirection, Sequences, Weights
    from cellwise.graph import StepGraph


def in_parts(run_direction: RunDirection, parts: int) -> RunDirection:
    """What runs a layer in one direction as so many layers of as many units each, by a function for one.

    The recurrent weight it takes in parts, (parts, G * H / parts, H / parts), as `cellwise.nn.biases` makes it.
    """

    def run(
        graph: StepGraph, weights: Weights, sequences: Sequences, initial: tuple[Tensor, ...], reverse: bool
    ) -> Result:
        states = [_columns(state, parts) for state in initial]
        outputs, finals = [], []
        for number, each in enumerate(_weights_of(graph, weights, parts)):
            first = tuple([state[number] for state in states])
            output, final = run_direction(graph, each, sequences, first, reverse)
            outputs.append(output)
            finals.append(final)
        together = tuple([torch.cat(each, dim=-1) for each in zip(*finals, strict=True)])
        return _side_by_side(outputs, 1 + len(graph.others)), together

    return run


def _weights_of(graph: StepGraph, weights: Weights, parts: int) -> list[Weights]:
    """Those of each part."""
    gates = {"weight_ih": graph.input_gates, "bias_ih": graph.input_gates, "bias_hh": graph.state_gates}
    cut: dict[str, Sequence[Tensor]] = {}
    for stem, value in weights.by_stem.items():
        if stem == "weight_hh":
            cut[stem] = value.unbind()
        elif stem in gates:
            rows = value.unflatten(0, (len(gates[stem]), parts, -1))
            cut[stem] = rows.transpose(0, 1).flatten(1, 2).unbind()
        elif stem in graph.vectors:
            cut[stem] = value.unflatten(0, (parts, -1)).unbind()
        else:  # beside x there may be one number for all units
            shared = stem in graph.scalars or value.shape[-1] == 1
            cut[stem] = (value,) * parts if shared else _columns(value, parts)
    kind = type(weights)
    return [kind({stem: each[number] for stem, each in cut.items()}) for number in range(parts)]


def _columns(value: Tensor, parts: int) -> Sequence[Tensor]:
    """The units (N, H) of each part, in one piece each."""
    return value.unflatten(-1, (parts, -1)).transpose(0, 1).contiguous().unbind()


def _side_by_side(outputs: list[Tensor], several: int) -> Tensor:
    if several == 1:
        return torch.cat(outputs, dim=-1)
    return torch.cat([each.unflatten(-1, (several, -1)) for each in outputs], dim=-1).flatten(-2)
