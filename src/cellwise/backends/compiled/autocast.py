"""Under autocast, what is multiplied has autocast's dtype, as in torch's operators; so do the kernels' rows."""

from __future__ import annotations

import torch

from cellwise.backends.base import Call, LayerSpec, Result, Sequences, Weights, run_stacked
from cellwise.backends.compiled.layer_pass import LayerPass


def run_cast(
    stack: LayerSpec, call: Call, made: LayerPass, device_type: str, given: torch.dtype | None = None
) -> Result:
    """Run a stack by a layer pass of another dtype, whatever the dtypes of input, states and weights.

    Args:
        given: the dtype of output and final states, if not that of the layer pass.
    """
    dtype, rows = made.kernels.dtype, call.sequences
    sequences = Sequences(rows.data.to(dtype), rows.steps, rows.batch, rows.sizes, rows.resets)
    weights = tuple(Weights({stem: w.to(dtype) for stem, w in e.by_stem.items()}) for e in call.weights)
    states = tuple(state.to(dtype) for state in call.states)
    with torch.autocast(device_type, enabled=False):
        cast = Call(sequences, states, weights, call.training, made, call.parts)
        output, finals = run_stacked(stack, cast, made.run, True, made.run_both)
        return (output, finals) if given is None else (output.to(given), tuple([f.to(given) for f in finals]))
