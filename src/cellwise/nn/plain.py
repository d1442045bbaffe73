"""The short way of plain calls: what is decided for a call is remembered by all that it was decided by.

A call is plain if all that it gives are plain tensors of torch, or a packed sequence and perhaps states, and nobody but
autograd watches. It then costs one tuple, one look-up in a dictionary, a look at each weight, and one function of the
backend (`Shortcut`). All other calls, and all mistakes, take the way of `RecurrentLayer._run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from cellwise import torch_internals
from cellwise.backends.base import CallContext, LayerSpec, PlainBatch, Shortcut
from cellwise.graph.heads import heads_of
from cellwise.nn.beside import sizes_beside
from cellwise.nn.biases import filler
from cellwise.nn.padding import output_widths
from cellwise.nn.plain_rows import (
    Counts,
    Give,
    Places,
    counts_of_packed,
    giver,
    key_of_given,
    numbers_of,
    places_of,
    widths_of,
)
from cellwise.nn.true_sizes import InTrueSizes
from cellwise.runtime import dispatch
from cellwise.runtime.outputs import by_name
from cellwise.runtime.sequences import Lengths

if TYPE_CHECKING:
    from cellwise.nn.layer import Examined, RecurrentLayer

Parameter = nn.Parameter


class Route(NamedTuple):
    """What was decided for calls: who runs them, and the weights that they take, in order."""

    shortcut: Shortcut
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    reads_memory: bool
    fill: Callable[[Sequence[Tensor]], list[Tensor]] | None  # where kernels take others
    give: Give | None  # where steps are given values beside x, or draw random numbers
    outputs: tuple[str, ...]  # the names of several
    output_sizes: tuple[int, ...] | None  # where these are not all alike
    places: Places  # of rows, where something is given for each and each has all steps


class RaggedRoutes(NamedTuple):
    """What was decided for calls that differ in their lengths alone.

    decides: whether lengths decide who runs a call: "auto" asks how much there is to do, and so does who cuts a layer
    into parts. by_work: who that is, by the longest row, all valid steps, and whether all rows have as many. by_who:
    the routes of these; None where one has no short way.
    """

    stack: LayerSpec
    context: CallContext
    workload: dispatch.Workload | None
    batch: int
    decides: bool
    by_work: dict[tuple[int, int, bool], tuple[int, int]]
    by_who: dict[tuple[int, int], Route | None]

    @staticmethod
    def of(layer: RecurrentLayer, examined: Examined) -> RaggedRoutes:
        """For calls like one that was examined."""
        stack, context, workload = examined.stack, examined.context, examined.workload
        decides = workload is not None or heads_of(stack.graph) > 1
        batch = examined.form.sequences.batch
        return RaggedRoutes(stack, context, workload, batch, decides, {}, {})

    def who(self, layer: RecurrentLayer, longest: int, rows: int, is_even: bool) -> tuple[int, int]:
        """The number of the choice, and in how many parts it goes."""
        workload = self.workload
        if workload is not None:
            workload = workload._replace(steps=longest, rows=rows, ragged=not is_even)
        number = dispatch.dispatch_id(layer._backend, self.stack, self.context, workload)
        return number, layer._parts(number, rows)


# None for calls that have no short way. All that decides is in the key, but for lengths.
_ROUTES: dict[tuple[Any, ...], Route | None] = {}
_RAGGED: dict[tuple[Any, ...], RaggedRoutes] = {}
_NO_WORK = (0, 0, False)
_UNKNOWN: Any = object()
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_MOST, _MOST_RAGGED = 4096, 256  # calls of so many forms are remembered

_is_recording, _threads = torch.is_grad_enabled, torch.get_num_threads
_transform_level = torch_internals.transform_level
_is_autocast = torch_internals.is_autocast_enabled
_watchers = torch_internals.num_dispatch_modes
_forward_ad = torch_internals.forward_ad
_is_wrapped = torch_internals.is_wrapped


def call(
    layer: RecurrentLayer,
    x: Any,
    state: Any,
    lengths: Lengths | None = None,
    resets: Tensor | None = None,
    beside: Mapping[str, Any] = _NOTHING,
) -> Any:
    """What a plain call returns; None of one that is not plain or has no short way."""
    key = _key_of(layer, x, state)
    if key is None:
        return None
    if beside or resets is not None or lengths is not None:
        more = key_of_given(x, lengths, resets, beside)
        if more is None:
            return None
        key += (resets is not None, lengths is not None, *more)
    data = x if type(x) is Tensor else x.data
    places, counts = None, None
    if lengths is not None:
        batch, steps = x.shape[:2] if layer.batch_first else (x.shape[1], x.shape[0])
        numbers = numbers_of(lengths, batch, steps)
        if numbers is None:
            return None
        places = places_of(numbers.tobytes(), steps, layer.batch_first)
        if (counts := places.counts) is None:
            return None
    elif data is not x and data.is_cpu and (counts := counts_of_packed(x)) is None:
        return None
    if counts is None:
        route = _ROUTES.get(key, _UNKNOWN)
        if route is _UNKNOWN:
            route = _route(layer, x, state, lengths, resets, beside)
            _remember(_ROUTES, key, route)
    else:
        route = _ragged_route(layer, key, counts, x, state, lengths, resets, beside)
    if route is None:
        return None
    weights = _weights(layer, route, data)
    if weights is None:
        return None
    states: Any = () if state is None else state if type(state) is tuple else (state,)
    if route.reads_memory:
        for each in (data, *states, *beside.values(), resets):
            if each is not None and (each.is_neg() or _is_wrapped(each)):
                return None
    if route.give is not None:
        weights = route.give(weights, data, beside, places or route.places)
    # A copy: the caller may write to his before the backward pass reads it.
    marks = None if resets is None else (places or route.places).take(resets).to(torch.uint8)
    if places is not None:
        found = _run_ragged(layer, route, places, x, states, weights, marks)
    else:
        run: Any = _run_packed if data is not x else _run_dense
        found = run(layer, route, x, states, weights, marks)
    if not route.outputs:
        return found
    return by_name(found[0], route.outputs, route.output_sizes), found[1]


def _key_of(layer: RecurrentLayer, x: Any, state: Any) -> tuple[Any, ...] | None:
    """All that decides; at every call, so in one piece."""
    if type(x) is Tensor:
        data, packed = x, None
    elif type(x) is PackedSequence:
        packed = _packed_key(x)
        if packed is None:
            return None
        data = x.data
    else:
        return None
    if state is None:
        states: Any = None
    elif type(state) is Tensor:
        states = (state.shape, state.dtype, state.is_cpu, state.layout)
    elif type(state) is tuple:
        states = []
        for each in state:
            if type(each) is not Tensor:
                return None
            states += (each.shape, each.dtype, each.is_cpu, each.layout)
        states = tuple(states)
    else:
        return None
    if _transform_level() is not None or _forward_ad._current_level >= 0:
        return None
    return (
        layer._key,
        data.shape if packed is None else packed,
        states,
        layer.input_size,
        layer.hidden_size,
        layer.num_layers,
        layer.bidirectional,
        layer.proj_size,
        layer.bias,
        layer.batch_first,
        data.dtype,
        data.is_cpu,
        data.layout,
        _is_recording() and (data.requires_grad or _first_requires_grad(layer)),
        layer.training,
        _threads(),
        _is_autocast(),
        _watchers(),
        layer._backend,
        layer.recompute,
        layer.weight_dropout,
    )


def _first_requires_grad(layer: RecurrentLayer) -> bool:
    for weight in layer._parameters.values():
        if weight is not None:
            return weight.requires_grad
    return False


def _packed_key(x: PackedSequence) -> tuple[Any, ...] | None:
    """What decides of a packed sequence; None if one of its fields is no plain tensor.

    On a CPU not the rows of each step: those are asked by `counts_of_packed`.
    """
    sizes, order, inverse = x.batch_sizes, x.sorted_indices, x.unsorted_indices
    if (
        type(x.data) is not Tensor
        or type(sizes) is not Tensor
        or not sizes.is_cpu
        or sizes.dtype is not torch.int64
        or sizes.dim() != 1
    ):
        return None
    shapes = [None if each is None else each.shape for each in (order, inverse)]
    if not x.data.is_cpu:
        return x.data.shape, sizes.numpy().tobytes(), *shapes
    first = int(sizes.numpy()[0]) if order is None and sizes.shape[0] else None
    return x.data.shape[1:], first, *shapes


def _remember(routes: dict[Any, Any], key: Any, route: Any) -> None:
    if len(routes) >= (_MOST if routes is _ROUTES else _MOST_RAGGED):
        routes.clear()
    routes[key] = route


def _ragged_route(
    layer: RecurrentLayer,
    key: tuple[Any, ...],
    counts: Counts,
    x: Any,
    state: Any,
    lengths: Lengths | None,
    resets: Tensor | None,
    beside: Mapping[str, Any],
) -> Route | None:
    """That of steps with so many rows: who runs a call may follow from how much there is to do."""
    routes = _RAGGED.get(key)
    if routes is None:
        routes = RaggedRoutes.of(layer, layer._examined(x, state, lengths, resets, beside))
        _remember(_RAGGED, key, routes)
    work = _NO_WORK
    if routes.decides:
        work = counts.steps, counts.rows, counts.last == routes.batch
    who = routes.by_work.get(work)
    if who is None:
        who = routes.who(layer, *work)
        _remember(routes.by_work, work, who)
    route = routes.by_who.get(who, _UNKNOWN)
    if route is _UNKNOWN:
        route = routes.by_who[who] = _route(layer, x, state, lengths, resets, beside)
    return route


def _route(
    layer: RecurrentLayer,
    x: Any,
    state: Any,
    lengths: Lengths | None,
    resets: Tensor | None,
    beside: Mapping[str, Any],
) -> Route | None:
    """Decide, after all checks, for this call and all with the same key."""
    chosen, form, info, dtype, parts, *_ = layer._examined(x, state, lengths, resets, beside)
    graph, sequences = info.stack.graph, form.sequences
    if parts > 1 or (info.padding is not None and not (x if type(x) is Tensor else x.data).is_cpu):
        return None
    if chosen is None or (chosen.backend.accepts_padding and _watchers()):
        return None
    if (layer.weight_dropout and layer.training) or (resets is not None and info.first is not None):
        return None
    is_packed = isinstance(x, PackedSequence)
    sizes = sequences.batch_sizes if is_packed or lengths is not None else None
    beside_sizes = sizes_beside(layer.hidden_size, info.padding)
    widths = widths_of(graph, beside, x, beside_sizes)
    batch = PlainBatch(
        dtype,
        sequences.steps,
        sequences.batch,
        layer.batch_first,
        sizes,
        tuple([1 if width == 1 else beside_sizes.width for width in widths.values()]),
        resets is not None,
        lengths is not None,
    )
    shortcut = chosen.backend.shortcut(chosen.stack, chosen.prepared, batch)
    if shortcut is None:
        return None
    names = tuple(name for each in info.names for _, name in each)
    shapes = tuple(shape for each in info.shapes for shape in each)
    stems = [[stem for stem, _ in each] for each in info.names]
    fill, places = filler(stems, info.shapes, info.filling, info.padding, dtype), Places.of(form)
    give = giver(layer.cell, graph, widths, len(info.names), beside_sizes)
    if info.padding is not None:
        shortcut = InTrueSizes(shortcut, info.padding)
    each_size = output_widths(info.padding)
    return Route(shortcut, names, shapes, shortcut.reads_memory, fill, give, graph.outputs, each_size, places)


def _weights(layer: RecurrentLayer, route: Route, data: Tensor) -> list[Tensor] | None:
    """The weights as they are now; None if one is of another kind, shape, dtype, layout or device than it should be.

    All are looked at in every call: `.data`, functional_call, parametrizations and load_state_dict(assign=True) put
    others in place without a trace, and torch.nn's own LSTM reads beyond the end of a weight that is too small.
    """
    mine, dtype, is_cpu, found = layer._parameters, data.dtype, data.is_cpu, []
    reads_memory = route.reads_memory
    for name, shape in zip(route.names, route.shapes, strict=True):
        weight = mine.get(name)
        if weight is None:
            weight = getattr(layer, name)
        if weight.shape != shape or weight.dtype is not dtype or weight.is_cpu is not is_cpu:
            return None
        if reads_memory and not (
            (
                type(weight) is Parameter
                or (type(weight) is Tensor and not weight.is_neg() and not _is_wrapped(weight))
            )
            and weight.is_contiguous()
            and weight.layout is torch.strided
        ):
            return None
        found.append(weight)
    return found if route.fill is None else route.fill(found)


def _run_dense(
    layer: RecurrentLayer, route: Route, x: Any, states: Any, weights: list[Tensor], marks: Tensor | None
) -> tuple[Tensor, Any]:
    unbatched = x.dim() == 2
    if unbatched:
        x = x.unsqueeze(0 if layer.batch_first else 1)
        states = [state.unsqueeze(1) for state in states]
    output, finals = route.shortcut.run(x, states, weights, layer.dropout, layer.training, None, marks)
    if unbatched:
        output = output.squeeze(0 if layer.batch_first else 1)
        finals = tuple([final.squeeze(1) for final in finals])
    return output, finals[0] if len(finals) == 1 else finals


def _run_ragged(
    layer: RecurrentLayer,
    route: Route,
    places: Places,
    x: Any,
    states: Any,
    weights: list[Tensor],
    marks: Tensor | None,
) -> tuple[Tensor, Any]:
    order, back = places.order, places.back
    data = places.take(x, x.shape[2])
    if order is not None:
        states = [state.index_select(1, order) for state in states]
    output, finals = route.shortcut.run(
        data, states, weights, layer.dropout, layer.training, places.sizes, marks
    )
    if back is not None:
        finals = tuple([final.index_select(1, back) for final in finals])
    return places.give_back(output), finals[0] if len(finals) == 1 else finals


def _run_packed(
    layer: RecurrentLayer, route: Route, x: Any, states: Any, weights: list[Tensor], _: None
) -> tuple[PackedSequence, Any]:
    data, sizes, order, inverse = x
    if order is not None:
        states = [state.index_select(1, order) for state in states]
    output, finals = route.shortcut.run(data, states, weights, layer.dropout, layer.training, sizes)
    if inverse is not None:
        finals = tuple([final.index_select(1, inverse) for final in finals])
    return PackedSequence(output, sizes, order, inverse), finals[0] if len(finals) == 1 else finals
