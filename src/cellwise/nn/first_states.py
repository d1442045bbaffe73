"""Where the states of a layer begin, if that is learned: one parameter (H,) of each layer, direction and state.

Without states of the caller's they are what a call is given, the same for all rows, so every backend and every form of
a batch takes them. Where `resets` begin a sequence anew, equations choose them (`cellwise.passes.restarting`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from cellwise.backends.base import Sequences, Weights
from cellwise.cells.base import Cell
from cellwise.errors import InputError, LayerError
from cellwise.graph import StepGraph
from cellwise.graph.expr import first_name
from cellwise.nn.definition import FirstStates, info_of
from cellwise.nn.padding import copied
from cellwise.runtime.compiling import is_tracing, specialize

if TYPE_CHECKING:
    from cellwise.nn.layer import RecurrentLayer


def check_learned_initial(cell: Cell) -> None:
    """Raise LayerError if a cell has something else under a name that the first value of a state is to have."""
    names = (*cell.vectors, *cell.scalars, *cell.inputs, *cell.options)
    taken = next((first_name(state) for state in cell.states if first_name(state) in names), None)
    if taken is not None:
        raise LayerError(
            f"learned_initial=True makes a parameter {taken} of where {taken[:-1]} begins, and {type(cell).__name__} "
            f"has a {taken} of its own; call that otherwise."
        )


def first_state(layer: RecurrentLayer, x: Any) -> Any:
    """The state that a layer begins with, for this x, in the form in which the layer takes it; None if x is none."""
    batch: int | None
    if isinstance(x, PackedSequence):
        order = x.sorted_indices
        batch = order.shape[0] if order is not None else int(x.batch_sizes[0]) if len(x.batch_sizes) else 0
    elif isinstance(x, Tensor) and x.dim() in (2, 3):
        batch = None if x.dim() == 2 else x.shape[0 if layer.batch_first else 1]
    else:
        return None
    definition = layer._definition()
    info = info_of(*(specialize(definition) if is_tracing() else definition))
    assert info.first is not None
    values = first_values(layer, info.first, batch)
    return values[0] if len(values) == 1 else values


def first_values(layer: RecurrentLayer, first: FirstStates, batch: int | None) -> tuple[Tensor, ...]:
    """The first value of each state, (L * directions, B, H), or without `batch` (L * directions, H)."""
    found = []
    for names, size in zip(first.names, first.sizes, strict=True):
        if names is None:
            like = next(values for values in first.names if values is not None)
            rows = _value(layer, like[0]).new_zeros(len(like), size)
        else:
            rows = _stacked(layer, names, size)
        found.append(rows if batch is None else rows.unsqueeze(1).expand(-1, batch, -1))
    return tuple(found)


def _stacked(layer: RecurrentLayer, names: tuple[str, ...], size: int) -> Tensor:
    values = [_checked(layer, name, size) for name in names]
    return values[0].unsqueeze(0) if len(values) == 1 else torch.stack(values)


def _value(layer: RecurrentLayer, name: str) -> Tensor:
    value: Tensor = getattr(layer, name)
    return value


def _checked(layer: RecurrentLayer, name: str, size: int) -> Tensor:
    value = _value(layer, name)
    if value.shape != (size,):
        raise InputError(
            f"{name} of this {type(layer).__name__} must have shape ({size},); it has shape {tuple(value.shape)}"
        )
    return value


def marks_of(sequences: Sequences, reverse: bool = False) -> Tensor:
    """(N, 1): 1 at the steps that begin anew, else 0.

    A reset stands between a step and the one before it. In reverse it is the earlier of the two that begins anew, if
    the row has the later one.
    """
    resets = sequences.resets
    assert resets is not None
    if reverse:
        resets = _of_next_step(sequences, resets)
    return resets.to(sequences.data.dtype).unsqueeze(-1)


def _of_next_step(sequences: Sequences, resets: Tensor) -> Tensor:
    """For each step what is said of the next one of its row; false at the last."""
    if sequences.sizes is None:
        return torch.cat([resets[sequences.batch :], torch.zeros_like(resets[: sequences.batch])])
    sizes = sequences.sizes.to(resets.device)
    ends = torch.cumsum(sizes, 0)
    places = torch.arange(len(resets), device=resets.device)
    # Rows of data beyond the valid steps, which there may be in a traced program, are of no step.
    time = torch.searchsorted(ends, places, right=True).clamp(max=len(sizes) - 1)
    following = torch.cat([sizes[1:], torch.zeros_like(sizes[:1])])[time]
    inside = places - (ends - sizes)[time] < following
    later = (places + sizes[time]).clamp(max=len(resets) - 1)
    return resets.index_select(0, later) & inside


def with_first_values(
    layer: RecurrentLayer,
    weights: tuple[Weights, ...],
    first: FirstStates,
    graph: StepGraph,
    sequences: Sequences,
) -> tuple[Weights, ...]:
    """The weights of all layers and directions, of equations that choose where states begin anew."""
    # Parts of the input are put between them when the layer's input is known.
    given = (name for name in graph.given if name not in graph.input_parts)
    own = (*graph.vectors, *graph.scalars, *given)
    backwards = marks_of(sequences, reverse=True) if layer.bidirectional else None
    found = []
    for place, each in enumerate(weights):
        named = dict(each.by_stem)
        for state, names, size in zip(first.states, first.names, first.sizes, strict=True):
            if names is not None:
                named[first_name(state)] = copied(_checked(layer, names[place], size), first.width)
        if backwards is not None and place % 2:
            named[first.mark] = backwards
        # In the order of a layer's parameters.
        found.append(Weights({stem: named[stem] for stem in (*(n for n in named if n not in own), *own)}))
    return tuple(found)
