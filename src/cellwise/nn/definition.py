"""What a layer is, as plain values, and what follows from that.

A compiler of torch takes what `info_of` and `dispatch_id_for` return as constants and does not look inside (see
`cellwise.runtime.compiling`), so they must depend on nothing but their arguments and what it guards on. For the same
reason a cell goes by a text: every release of torch takes one for a constant, some take no object for one.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from cellwise.backends.base import LayerSpec
from cellwise.cells.base import Cell
from cellwise.errors import BackendError
from cellwise.graph import StepGraph
from cellwise.graph.expr import first_name
from cellwise.passes import padded, restarting
from cellwise.plan import (
    Filling,
    Padding,
    ParameterSpec,
    filling_of,
    output_sizes,
    padding_of,
    parameter_layout,
    state_sizes,
)
from cellwise.runtime import dispatch
from cellwise.runtime.compiling import constant_result

# The key of a cell, D, H, L, bias, dropout, bidirectional, proj_size.
Definition = tuple[str, int, int, int, bool, float, bool, int]
# For each layer and direction, the stem and the full name of its parameters.
Names = tuple[tuple[tuple[str, str], ...], ...]

# Of each cell that a layer has, by its key.
_CELLS: dict[str, Cell] = {}
_KEYS: dict[Cell, str] = {}
_NUMBERS = itertools.count()  # threads that meet here draw different ones


_TRAINING, _LEARNED = " in training", ", first states learned"


def key_of(cell: Cell, training: bool = False, learned_initial: bool = False) -> str:
    """A text that stands for a cell in this process; with `training` for its equations there, if these are others;
    with `learned_initial` where all its states begin at what is learned.
    """
    key = _KEYS.get(cell)
    if key is None:
        key = f"{cell.name} #{next(_NUMBERS)}"
        _CELLS[key] = cell
        key = _KEYS.setdefault(cell, key)
    key += _LEARNED * learned_initial
    return key + _TRAINING if training and cell.training_graph is not cell.graph else key


def cell_of(key: str) -> Cell:
    """The cell that a key stands for."""
    return _CELLS[key.removesuffix(_TRAINING).removesuffix(_LEARNED)]


def _graphs_of(key: str) -> tuple[StepGraph, StepGraph]:
    """What a layer computes, and its step, which is the same graph for all that begin elsewhere."""
    cell = cell_of(key)
    graph = cell.training_graph if key.endswith(_TRAINING) else cell.graph
    all_learned = key.removesuffix(_TRAINING).endswith(_LEARNED)
    return replace(graph, learned_first=graph.states) if all_learned else graph, graph.step


class LayerInfo(NamedTuple):
    """What follows from the definition of a layer."""

    stack: LayerSpec
    names: Names
    shapes: tuple[tuple[tuple[int, ...], ...], ...]  # of the parameters, in the order of their names
    state_sizes: tuple[int, ...]
    filling: Filling | None  # how its kernels' weights are made of its parameters, where these are others
    first: FirstStates | None  # where states begin, if any of them at what is learned
    padding: Padding | None  # of what kernels take in rows of one width, where it has several


class FirstStates(NamedTuple):
    """Where the states of a layer begin, of which some at what is learned.

    names: for each state, of each layer and direction in turn, its parameter; None for zeros. sizes: of each state.
    restarting: the stack of a call with `resets`, whose equations are told by the value `mark` beside x of each step
    that begins anew.
    """

    states: tuple[str, ...]
    names: tuple[tuple[str, ...] | None, ...]
    restarting: LayerSpec
    mark: str
    sizes: tuple[int, ...]
    width: int  # of the rows in which kernels take them
    are_read: bool  # whether any equation reads a state, so that it matters where states begin anew


@lru_cache(maxsize=1024)
def _info_of(definition: Definition) -> LayerInfo:
    key, input_size, hidden_size, num_layers, bias, dropout, bidirectional, proj_size = definition
    graph, step = _graphs_of(key)
    sizes = (input_size, hidden_size, num_layers, bias, dropout, bidirectional, proj_size)
    specs = specs_of(LayerSpec(step, *sizes))
    padding = padding_of(graph, hidden_size, bias, 2 if bidirectional else 1)
    if padding is not None:
        step = padded(step, hidden_size)
        sizes = (input_size, padding.width, *sizes[2:])
    stack = LayerSpec(step, *sizes)
    names = tuple(tuple((spec.stem, spec.name(*place)) for spec in each) for place, each in specs.items())
    shapes = tuple(tuple(spec.shape for spec in each) for each in specs.values())
    filling = filling_of(graph, hidden_size, bias) if padding is None else None
    each_size = state_sizes(graph, hidden_size, proj_size)
    first = None
    if graph.learned_first:
        begins = graph if padding is None else replace(step, learned_first=graph.learned_first)
        first = _first_states(begins, sizes, list(specs), each_size)
    return LayerInfo(stack, names, shapes, each_size, filling, first, padding)


def _first_states(
    graph: StepGraph, sizes: tuple[Any, ...], places: list[tuple[int, bool]], each_size: tuple[int, ...]
) -> FirstStates:
    names = tuple(
        tuple(ParameterSpec(first_name(state), ()).name(*place) for place in places)
        if state in graph.learned_first
        else None
        for state in graph.states
    )
    made = restarting(graph)
    stack = LayerSpec(made, *sizes)
    are_read = made.inputs[-1] in made.asked_inputs
    return FirstStates(graph.states, names, stack, made.inputs[-1], each_size, stack.hidden_size, are_read)


def all_specs(definition: Definition) -> list[tuple[str, tuple[int, ...]]]:
    """All parameters of a layer, those where states begin among them: name and shape, in order."""
    stack = LayerSpec(_graphs_of(definition[0])[0], *definition[1:])
    return [(spec.name(*place), spec.shape) for place, each in specs_of(stack).items() for spec in each]


def specs_of(stack: LayerSpec) -> dict[tuple[int, bool], tuple[ParameterSpec, ...]]:
    """The parameters of each (layer, reverse), in the order of torch.nn."""
    directions = (False, True) if stack.bidirectional else (False,)
    return {
        (layer, reverse): _layout(stack, layer) for layer in range(stack.num_layers) for reverse in directions
    }


def _layout(stack: LayerSpec, layer: int) -> tuple[ParameterSpec, ...]:
    below = output_sizes(stack.graph, stack.hidden_size, stack.proj_size)[0] * stack.directions
    width = stack.input_size if layer == 0 else below
    return parameter_layout(stack.graph, width, stack.hidden_size, stack.bias, stack.proj_size)


@constant_result
def info_of(*definition: *Definition) -> LayerInfo:
    """What follows from the definition of a layer, worked out once."""
    return _info_of(definition)


@constant_result
def dispatch_id_for(
    backend: str,
    device: torch.device,
    dtype: torch.dtype,
    resets: bool,
    traced: bool,
    recompute: bool,
    workload: dispatch.Workload | None,
    *definition: *Definition,
) -> int:
    """The number of the backend for a layer in this setting, and of this workload where it is known."""
    if traced and backend != "reference" and torch.onnx.is_in_onnx_export():
        raise BackendError(
            backend=backend,
            what=f"this {cell_of(definition[0]).name} layer in torch.onnx.export",
            reason="ONNX has operators for torch.nn's RNN, LSTM and GRU alone, called as torch.nn calls them "
            "(cellwise.revert(model) brings those back)",
            willing="'reference', whose program holds every step of x and is good for so many steps alone",
        )
    stack, resets = stack_for(_info_of(definition), resets)
    context = dispatch.context_of(device, dtype, resets, traced, recompute)
    return dispatch.dispatch_id(backend, stack, context, workload)


@constant_result
def parts_for(number: int, rows: int | None) -> int:
    """Into how many parts the backend of this number cuts a layer in a call of so many rows (`Backend.parts`)."""
    backend, stack, _ = dispatch.DISPATCHES[number]
    return backend.parts(stack, rows)


def stack_for(info: LayerInfo, resets: bool) -> tuple[LayerSpec, bool]:
    """What is run in a call, with resets or without; and whether its backend is given these, or its equations are."""
    restarts = resets and info.first is not None and info.first.are_read
    return (info.first.restarting, False) if restarts and info.first is not None else (info.stack, resets)
