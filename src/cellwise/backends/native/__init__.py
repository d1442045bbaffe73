"""Torch's own operators (oneDNN and ATen on a CPU, cuDNN on a GPU), for the cells whose equations they compute.

A cell is recognised by its equations, not its name: a cell of one's own that is an LSTM runs as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.base import Backend, Call, CallContext, LayerSpec, PlainBatch, Result, Shortcut
from cellwise.cells.gru import GRU
from cellwise.cells.lstm import LSTM
from cellwise.cells.rnn import RNN
from cellwise.plan import state_sizes
from cellwise.torch_internals import TransformType, operators


class Native(Backend):
    name = "native"
    summary = "torch's own operator (oneDNN and ATen on a CPU, cuDNN on a GPU)"

    def supports(self, stack: LayerSpec, context: CallContext) -> str | None:
        graph = stack.graph
        if graph.fingerprint not in _operators():
            return f"torch has no operator for the equations of {graph.name}"
        if context.resets:
            return "torch's operators know no resets"
        if context.recompute:
            return "torch's operators keep all that they computed, and cannot recompute it"
        if not context.dtype.is_floating_point:
            return f"torch's operators know no {context.dtype}"
        if TransformType.Vmap in context.transforms:
            return "torch's operators know no torch.func.vmap"
        return None

    def prepare(self, stack: LayerSpec, context: CallContext) -> str:
        return _operators()[stack.graph.fingerprint]

    def shortcut(self, stack: LayerSpec, prepared: str, batch: PlainBatch) -> Shortcut | None:
        # Torch's operators want a step of every row.
        return None if batch.padded else _Direct(stack, prepared, batch)

    def run(self, stack: LayerSpec, call: Call) -> Result:
        operator = getattr(operators, call.prepared)
        sequences = call.sequences
        stems = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if stack.bias else [])]
        stems += ["weight_hr"] if stack.proj_size else []
        flat = [weights.by_stem[stem] for weights in call.weights for stem in stems]
        settings = (stack.bias, stack.num_layers, stack.dropout, call.training, stack.bidirectional)
        width = sequences.data.shape[-1]
        if not sequences.steps:  # every length is zero; torch's operators want at least one step
            return sequences.data.new_zeros(0, call.states[0].shape[-1] * stack.directions), call.states
        if sequences.is_dense:
            data = sequences.data.view(sequences.steps, sequences.batch, width)
            output, *states = operator(data, _given(call.states), flat, *settings, False)
            return output, tuple(states)
        return _run_ragged(operator, call, flat, settings)


class _Direct(Shortcut):
    """What torch.nn's forward does with a tensor or a packed batch once it is checked, and no more than that."""

    def __init__(self, stack: LayerSpec, name: str, batch: PlainBatch) -> None:
        self._operator, self._batch_first = getattr(operators, name), batch.batch_first
        self._bias, self._layers, self._both = stack.bias, stack.num_layers, stack.bidirectional
        rows, sizes = (
            stack.num_layers * stack.directions,
            state_sizes(stack.graph, stack.hidden_size, stack.proj_size),
        )
        self._states = [(rows, batch.batch, size) for size in sizes]

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        dropout: float,
        training: bool,
        sizes: Tensor | None,
        resets: Tensor | None = None,
    ) -> Result:
        given = states or [torch.zeros(shape, dtype=x.dtype, device=x.device) for shape in self._states]
        first = given[0] if len(given) == 1 else given
        options = (self._bias, self._layers, dropout, training, self._both)
        if sizes is None:
            output, *finals = self._operator(x, first, weights, *options, self._batch_first)
        else:
            output, *finals = self._operator(x, sizes, first, weights, *options)
        return output, tuple(finals)


def _run_ragged(operator: Any, call: Call, flat: list[Tensor], settings: tuple[Any, ...]) -> Result:
    """Torch wants at least one step in every row: rows without any keep their states and stay outside."""
    sizes = call.sequences.sizes
    assert sizes is not None, "a dense batch is not ragged"
    rows = int(sizes[0])
    inside = tuple(state[:, :rows].contiguous() for state in call.states)  # as cuDNN wants them
    output, *states = operator(call.sequences.data, sizes, _given(inside), flat, *settings)
    if rows < call.sequences.batch:
        states = [
            torch.cat([new, old[:, rows:]], dim=1) for new, old in zip(states, call.states, strict=True)
        ]
    return output, tuple(states)


def _given(states: tuple[Tensor, ...]) -> Any:
    return states[0] if len(states) == 1 else states


@cache
def _operators() -> dict[str, str]:
    """The names of torch's operators by the equations that they compute."""
    return {
        cell.graph.fingerprint: operator
        for cell, operator in (
            (RNN(nonlinearity="tanh"), "rnn_tanh"),
            (RNN(nonlinearity="relu"), "rnn_relu"),
            (LSTM(), "lstm"),
            (GRU(), "gru"),
        )
    }
