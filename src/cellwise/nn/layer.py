"""The one way in which every recurrent layer is called: read the batch, choose a backend, give back what came in.

Longer than other files: the shapes and errors of calls are described here, for all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from cellwise.backends.base import Call, CallContext, LayerSpec, Sequences, Stepper, Weights
from cellwise.cells.base import Cell
from cellwise.errors import InputError, LayerError, a_or_an
from cellwise.graph import StepGraph
from cellwise.nn.beside import drop_weights, rows_beside, sizes_beside, with_given
from cellwise.nn.biases import filled
from cellwise.nn.checks import as_states, check_input, check_states, check_steps, check_weights
from cellwise.nn.definition import (
    Definition,
    FirstStates,
    LayerInfo,
    Names,
    dispatch_id_for,
    info_of,
    key_of,
    parts_for,
    stack_for,
)
from cellwise.nn.first_states import first_values, marks_of, with_first_values
from cellwise.nn.padding import output_widths, padded_states, true_output, true_states
from cellwise.nn.true_sizes import StepperInTrueSizes
from cellwise.runtime import dispatch
from cellwise.runtime.compiling import is_tracing, specialize
from cellwise.runtime.outputs import by_name, namer
from cellwise.runtime.sequences import Form, Lengths, form_of
from cellwise.runtime.stream import Stream, StreamBeside, StreamOfSeveral
from cellwise.runtime.watched import Watched


class Examined(NamedTuple):
    """A call after all checks: who would run it (None if nobody can), its form, the dtype to compute in, in how many
    parts; and what that was decided by.
    """

    chosen: dispatch.Dispatch | None
    form: Form
    info: LayerInfo
    dtype: torch.dtype
    parts: int
    explanation: dispatch.Explanation
    stack: LayerSpec
    context: CallContext
    workload: dispatch.Workload | None


class RecurrentLayer(nn.Module):
    """What all layers share: reading the batch, choosing a backend, giving back what came in. Abstract.

    A subclass has `cell` and the attributes of a torch.nn recurrent layer.
    """

    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    _backend: str = "auto"
    # May be set: whether the backward pass computes each step again from the states before it, instead of having the
    # forward pass keep its values. Less memory, more time.
    recompute: bool = False
    # The probability with which a recurrent weight is zero in a call, in training (`drop_weights`).
    weight_dropout: float = 0.0
    # Whether all states begin at what is learned, whatever the cell says.
    learned_initial: bool = False

    @property
    def cell(self) -> Cell:
        """The definition that this layer runs."""
        raise NotImplementedError

    @property
    def _key(self) -> str:
        """What the cell goes by where plain values are wanted."""
        return key_of(self.cell)

    @property
    def _training_key(self) -> str:
        """The same of the cell in training; another one where its equations ask for that."""
        return self._key

    @property
    def learned_first(self) -> tuple[str, ...]:
        """The states that begin at what is learned, of the parameter `h0_l{k}` for the state h."""
        return self.cell.states if self.learned_initial else self.cell.learned_first

    @property
    def backend(self) -> str:
        """The backend asked for: "auto", "native", "cpu" or "reference". May be set at any time.

        Raises, when set:
            UnknownBackendError: there is none of this name.
        """
        return self._backend

    @backend.setter
    def backend(self, name: str) -> None:
        self._backend = dispatch.check_name(name)

    def _definition(self, training: bool = False) -> Definition:
        return (
            self._training_key if training else self._key,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bias,
            self.dropout,
            self.bidirectional,
            self.proj_size,
        )

    def _weights(self, names: Names) -> tuple[Weights, ...]:
        # Looked up by name on every call: parametrizations, functional_call and weight hooks put others there.
        mine: dict[str, Any] = self._parameters
        return tuple(
            [
                Weights({stem: mine[name] if name in mine else getattr(self, name) for stem, name in each})
                for each in names
            ]
        )

    def _run(
        self,
        x: Any,
        state: Any,
        lengths: Lengths | None,
        resets: Tensor | None,
        beside: Mapping[str, Any] = MappingProxyType({}),
    ) -> tuple[Any, Any]:
        traced = is_tracing()
        definition = (
            specialize(self._definition(self.training)) if traced else self._definition(self.training)
        )
        info = info_of(*definition)
        try:
            data, weights, dtype = self._checked(x, info)
        except InputError:
            if isinstance(x, Proxy):
                return self._as_node(x, state, lengths, resets, beside)
            raise
        asked = (self._backend, data.device, dtype, resets is not None, traced, self.recompute)
        # A program that is traced is good for other sizes too.
        surplus = (
            traced and dispatch.DISPATCHES[dispatch_id_for(*asked, None, *definition)].backend.accepts_padding
        )
        unbatched = data is x and data.dim() == 2
        if unbatched:
            x, lengths, resets = self._as_batch(x, lengths, resets)
        form = form_of(x, self.batch_first, lengths, resets, surplus)
        workload = None if traced else self._workload(form.sequences, weights)
        number = dispatch_id_for(*asked, workload, *definition)
        backend, stack, prepared = dispatch.DISPATCHES[number]
        parts = self._parts(number, None if traced else len(form.sequences.data))
        weights = filled(weights, info.filling, info.padding, parts)
        states = padded_states(self._states(state, form.sequences.batch, data, unbatched, info), info.padding)
        if state is not None:
            states = tuple([form.sort(each) for each in states])
        sequences = form.sequences
        if info.first is not None and info.first.are_read and resets is not None:
            weights = self._given(weights, stack.graph, beside, form, unbatched, info, info.first)
            sequences = Sequences(sequences.data, sequences.steps, sequences.batch, sequences.sizes)
        else:
            weights = self._given(weights, stack.graph, beside, form, unbatched, info)
        if self.weight_dropout and self.training:
            fixed = len(self.cell.graph.functions) * (
                info.padding.width if info.padding else self.hidden_size
            )
            weights = drop_weights(weights, self.weight_dropout, info.padding, fixed)
        output, finals = backend.run(stack, Call(sequences, states, weights, self.training, prepared, parts))
        output = form.output(true_output(output, info.padding))
        finals = tuple([form.unsort(final) for final in true_states(finals, info.padding)])
        if unbatched:
            output = output.squeeze(0 if self.batch_first else 1)
            finals = tuple([final.squeeze(1) for final in finals])
        if stack.graph.outputs:
            output = by_name(output, stack.graph.outputs, output_widths(info.padding))
        return output, finals[0] if len(finals) == 1 else finals

    def _given(
        self,
        weights: tuple[Weights, ...],
        graph: StepGraph,
        beside: Mapping[str, Any],
        form: Form,
        unbatched: bool,
        info: LayerInfo,
        restarts: FirstStates | None = None,
    ) -> tuple[Weights, ...]:
        """The weights with all that kernels are given beside x; with `restarts` also where states begin anew."""
        if not (beside or graph.inputs or graph.draws):
            return weights
        sizes = sizes_beside(self.hidden_size, info.padding)
        rows = rows_beside(self.cell, beside, form, sizes, unbatched)
        if restarts is None:
            return with_given(weights, graph, rows, form, sizes)
        rows |= {restarts.mark: marks_of(form.sequences)}
        given = with_given(weights, graph, rows, form, sizes)
        return with_first_values(self, given, restarts, graph, form.sequences)

    def _checked(self, x: Any, info: LayerInfo) -> tuple[Tensor, tuple[Weights, ...], torch.dtype]:
        """The numbers of an input that fits this layer, the parameters as they are now, and the dtype to compute in."""
        packed = isinstance(x, PackedSequence)
        data = x.data if packed else x
        if not isinstance(data, Tensor):
            raise InputError(
                f"{type(self).__name__} takes a tensor or a PackedSequence; got {a_or_an(type(x).__name__)}."
            )
        weights = self._weights(info.names)
        first = next(iter(weights[0].by_stem.values()))
        check_input(type(self).__name__, data, first, self.input_size, packed)
        if not packed:
            check_steps(data.shape[1 if self.batch_first and data.dim() == 3 else 0])
        alike = check_weights(
            type(self).__name__, [each.by_stem for each in weights], info.names, info.shapes, data
        )
        # Under autocast weights may have other dtypes than the input; then only what casts them can compute.
        return data, weights, data.dtype if alike else torch.get_autocast_dtype(data.device.type)

    def _parts(self, number: int, rows: int | None) -> int:
        """How many parts a layer is cut into. Weights are dropped from the whole, as they always were."""
        return 1 if self.weight_dropout and self.training else parts_for(number, rows)

    def _as_node(self, x: Proxy, state: Any, lengths: Any, resets: Any, beside: Mapping[str, Any]) -> Any:
        """One call of this module in a graph of torch.fx, as its tracers make one of torch.nn's modules."""
        options = {"lengths": lengths, "resets": resets, **beside}
        given = {name: value for name, value in options.items() if value is not None}
        tracer: Any = x.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(self), (x, state), given)

    def _examined(
        self,
        x: Any,
        state: Any,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
        beside: Mapping[str, Any] = MappingProxyType({}),
    ) -> Examined:
        """Who would run this call, after all checks. Nothing is run."""
        info = info_of(*self._definition(self.training))
        data, weights, dtype = self._checked(x, info)
        unbatched = data is x and data.dim() == 2
        batch = self._as_batch(x, lengths, resets) if unbatched else (x, lengths, resets)
        form = form_of(batch[0], self.batch_first, batch[1], batch[2])
        self._states(state, form.sequences.batch, data, unbatched, info)
        rows_beside(self.cell, beside, form, sizes_beside(self.hidden_size, info.padding), unbatched)
        stack, resetting = stack_for(info, resets is not None)
        context = dispatch.context_of(data.device, dtype, resetting, False, self.recompute)
        workload = self._workload(form.sequences, weights)
        explanation = dispatch.explain(self._backend, stack, context, workload)
        chosen, parts = None, 1
        if explanation.chosen is not None:
            number = dispatch.dispatch_id(explanation.chosen, stack, context, None)
            chosen, parts = dispatch.DISPATCHES[number], self._parts(number, len(form.sequences.data))
        return Examined(chosen, form, info, dtype, parts, explanation, stack, context, workload)

    def _workload(self, sequences: Sequences, weights: tuple[Weights, ...]) -> dispatch.Workload | None:
        """How much a call computes, if its backend is to be chosen by that and its sizes are numbers."""
        data = sequences.data
        if self._backend != dispatch.AUTO or type(data) not in (Tensor, nn.Parameter):
            return None
        if not (data.is_cpu or data.is_cuda):
            return None
        recorded = torch.is_grad_enabled() and (
            data.requires_grad or any(weight.requires_grad for weight in weights[0].by_stem.values())
        )
        return dispatch.Workload(
            sequences.steps,
            sequences.batch,
            data.shape[0],
            not sequences.is_dense,
            recorded,
            self.training,
            torch.get_num_threads(),
        )

    def _as_batch(
        self, x: Tensor, lengths: Lengths | None, resets: Tensor | None
    ) -> tuple[Tensor, Lengths | None, Tensor | None]:
        """A single sequence (T, D) as a batch of one; its `lengths` is one number, its `resets` has shape (T,)."""
        place = 0 if self.batch_first else 1
        if lengths is not None:
            given = lengths if isinstance(lengths, Tensor) else torch.as_tensor(lengths, device="cpu")
            lengths = given.reshape(-1)
        if resets is not None and resets.dim() == 1:
            resets = resets.unsqueeze(place)
        return x.unsqueeze(place), lengths, resets

    def _state_shapes(self, batch: int, info: LayerInfo) -> list[tuple[int, int, int]]:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        return [(rows, batch, size) for size in info.state_sizes]

    def _states(
        self, state: Any, batch: int, data: Tensor, unbatched: bool, info: LayerInfo
    ) -> tuple[Tensor, ...]:
        shapes = self._state_shapes(batch, info)
        if state is None:
            return tuple([torch.zeros(shape, dtype=data.dtype, device=data.device) for shape in shapes])
        states = as_states(state, len(shapes), type(self).__name__)
        check_states(states, shapes, unbatched, data)
        # Under autocast they may have another dtype.
        states = tuple([each if each.dtype == data.dtype else each.to(data.dtype) for each in states])
        return tuple(each.unsqueeze(1) for each in states) if unbatched else states

    def stream(self, batch_size: int = 1) -> Stream:
        """A stepper that keeps its state between calls: `y = stream(x_t)`, x_t of shape (B, D), y (B, H).

        On a CPU it takes the compiled kernels, whatever "auto" would take for whole sequences, and packs the weights
        once (see `Stream`).

        Raises:
            LayerError: the layer is bidirectional, and so needs the end of a sequence before its beginning; or
                `batch_size` is no number of rows.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 0:
            raise LayerError(f"batch_size is the number of rows of each step; got {batch_size!r}.")
        if self.bidirectional:
            raise LayerError(
                "A bidirectional layer cannot be streamed: its reverse direction starts at the end of the sequence. "
                "Stream a layer with bidirectional=False."
            )

        several = len(self.cell.outputs) > 1
        return (StreamOfSeveral if several else StreamBeside if self.cell.inputs else Stream)(
            self, batch_size
        )

    def _stream_sizes(self) -> tuple[int, torch.dtype, torch.device]:
        weight = self._first_weight()
        padding = info_of(*self._definition()).padding
        size = (self.proj_size or self.hidden_size) * max(1, len(self.cell.outputs))
        return size if padding is None else sum(padding.outputs), weight.dtype, weight.device

    def _stream_outputs(self) -> Callable[[Tensor], Any]:
        names, size = self.cell.outputs, self._stream_sizes()[0]
        widths = output_widths(info_of(*self._definition()).padding)
        return namer(names, widths or (size // len(names),) * len(names))

    def _stream_beside(
        self,
    ) -> tuple[tuple[str, ...], Mapping[str, float | None], Mapping[str, int]]:
        inputs, info = self.cell.inputs, info_of(*self._definition())
        defaults = dict(inputs) if isinstance(inputs, Mapping) else dict.fromkeys(inputs)
        graph, sizes = info.stack.graph, sizes_beside(self.hidden_size, info.padding)
        asked = tuple(name for name in graph.asked_inputs if name not in graph.input_parts)
        return asked, defaults, {name: sizes.of(name) or 1 for name in inputs}

    def _first_weight(self) -> Tensor:
        return next(iter(self._weights(info_of(*self._definition()).names)[0].by_stem.values()))

    def _stream_state(self, batch: int, state: Any = None) -> tuple[Tensor, ...]:
        info, like = info_of(*self._definition()), self._first_weight()
        if state is not None:
            return self._states(state, batch, like, False, info)
        with torch.no_grad():
            return tuple([each.contiguous() for each in self._first_states(batch, like)])

    def _first_states(self, batch: int, like: Tensor) -> tuple[Tensor, ...]:
        """The states that a layer begins with, (L * directions, B, size) each."""
        info = info_of(*self._definition())
        if info.first is None:
            return self._states(None, batch, like, False, info)
        return first_values(self, info.first, batch)

    def _stream_step(
        self, x: Tensor, states: tuple[Tensor, ...], beside: Mapping[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        definition = self._definition()
        info = info_of(*definition)
        data, weights, dtype = self._checked(x.unsqueeze(0), info)
        form = form_of(data, batch_first=False, lengths=None, resets=None)
        workload = self._workload(form.sequences, weights)
        number = dispatch_id_for(
            self._backend, data.device, dtype, False, False, False, workload, *definition
        )
        backend, stack, prepared = dispatch.DISPATCHES[number]
        steps = {
            name: value.unsqueeze(0) if isinstance(value, Tensor) else value for name, value in beside.items()
        }
        parts = self._parts(number, len(data[0]))
        weights = filled(weights, info.filling, info.padding, parts)
        weights = self._given(weights, stack.graph, steps, form, False, info)
        states = padded_states(states, info.padding)
        output, finals = backend.run(stack, Call(form.sequences, states, weights, False, prepared, parts))
        return form.output(true_output(output, info.padding))[0], true_states(finals, info.padding)

    def _stepper(self, batch_size: int) -> tuple[Stepper, Watched] | None:
        """What makes single steps on the weights as they are now, and these watched; None if no backend has it."""
        info = info_of(*self._definition())
        names = tuple(name for each in info.names for _, name in each)
        if any(name not in self._parameters for name in names):
            return None  # a stepper reads them again, to see them change
        weights = self._weights(info.names)
        stems = [each.by_stem for each in weights]
        watched = [weight for each in stems for weight in each.values()]
        if any(weight.is_inference() for weight in watched):
            return None
        first = watched[0]
        if not check_weights(type(self).__name__, stems, info.names, info.shapes, first):
            return None  # under autocast
        context = dispatch.context_of(first.device, first.dtype, False, traced=False)
        with torch.no_grad():
            weights = filled(weights, info.filling, info.padding)
        made = dispatch.stepper(self._backend, info.stack, context, weights, batch_size, watched)
        if made is not None and info.padding is not None:
            made = StepperInTrueSizes(made, info.padding, batch_size, first)
        return None if made is None else (made, Watched(self._parameters, names, made.reads_all))

    def extra_repr(self) -> str:
        shown = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("proj_size", 0),
            ("num_layers", 1),
            ("bias", True),
            ("batch_first", False),
            ("dropout", 0),
            ("bidirectional", False),
            ("backend", "auto"),
            ("recompute", False),
            ("weight_dropout", 0.0),
            ("learned_initial", False),
        ):
            value = getattr(self, name)
            if value != default:
                shown += f", {name}={value!r}" if isinstance(value, str) else f", {name}={value}"
        return shown
