"""What the forward pass keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.compiler import Sizes
from cellwise.graph import StepGraph
from cellwise.plan.buffers import ROW_TAPE

PROJECTION = "weight_hr"


def sizes_of(
    kernels: CellKernels, bias: bool, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]
) -> Sizes:
    """The sizes that the tensors of a call have."""
    hidden, projected = states[0].shape[1], 0
    if kernels.projected:
        projected, hidden = weights[kernels.stems[bias].index(PROJECTION)].shape
    return make_sizes(kernels, x.shape[1], hidden, projected)


def make_sizes(kernels: CellKernels, width: int, hidden: int, projected: int) -> Sizes:
    """These D, H and P with the widths of rows."""
    padded, outputs = (kernels.padded(hidden), kernels.padded(projected)), 1 + len(kernels.graph.others)
    return Sizes(width, hidden, projected, *padded, outputs)


@dataclass(frozen=True)
class SavedLayout:
    """What a forward pass keeps for the backward pass beside its output, by name: (columns, width) of its rows.

    The outputs are the first state's history where they are that state and nothing is zeroed in between; they are
    kept once more only where the caller's are not in whole rows.
    """

    shapes: dict[str, tuple[int, int]]
    output_is_history: bool


def history_of(state: str) -> str:
    """What the history of a state is kept under; a state may itself be called tape, or output."""
    return f"{state} history"


def output_is_history(graph: StepGraph, has_resets: bool) -> bool:
    """Whether the outputs are what the first state was at every step."""
    return graph.output_is_history and not has_resets


def saved_layout(kernels: CellKernels, sizes: Sizes, has_resets: bool) -> SavedLayout:
    """What is kept for layers of these sizes."""
    plan, graph = kernels.plan, kernels.graph
    is_history = output_is_history(graph, has_resets)
    shapes: dict[str, tuple[int, int]] = {}
    if plan.tape.columns:
        shapes["tape"] = (len(plan.tape.columns), sizes.padded)
    if plan.tape.row_columns:
        shapes[ROW_TAPE] = (len(plan.tape.row_columns), 1)
    if sizes.padded_output != sizes.output and (is_history or plan.reads_output):
        shapes["output"] = (sizes.outputs, sizes.padded_output)
    for place, name in enumerate(graph.states):
        # Where states are set to zero between steps, the outputs are not what the next step began with.
        if name in plan.histories or not is_history:
            shapes[history_of(name)] = (1, sizes.of_state(place)[1])
    return SavedLayout(shapes, is_history)
