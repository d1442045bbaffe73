"""The one way in which every recurrent layer is called, and the layer for any cell.

Longer than other files: the shapes and errors of calls are described here, for all layers.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn import init
from torch.nn.utils.rnn import PackedSequence

from cellwise import cells
from cellwise.backends.base import Call, Sequences, Stack, Stepper, Weights
from cellwise.cells.base import Cell, own_parameters
from cellwise.errors import BackendError, InputError, LayerError
from cellwise.nn.checks import as_states, check_input, check_states, check_steps, check_weights
from cellwise.plan import ParameterSpec, parameter_layout, state_sizes
from cellwise.runtime import dispatch
from cellwise.runtime.compiling import fixed, is_tracing, untraced
from cellwise.runtime.sequences import Lengths, form_of
from cellwise.runtime.stream import Stream, Watched

# What a layer is, as plain values: the cell, D, H, L, bias, dropout, bidirectional, proj_size.
Definition = tuple[Cell, int, int, int, bool, float, bool, int]
# For each layer and direction, the stem and the full name of its parameters.
Names = tuple[tuple[tuple[str, str], ...], ...]


class Facts(NamedTuple):
    """What follows from the definition of a layer."""

    stack: Stack
    names: Names
    shapes: tuple[tuple[tuple[int, ...], ...], ...]  # of the parameters, in the order of their names
    state_sizes: tuple[int, ...]


@lru_cache(maxsize=1024)
def _facts_of(definition: Definition) -> Facts:
    cell, input_size, hidden_size, num_layers, bias, dropout, bidirectional, proj_size = definition
    stack = Stack(cell.graph, input_size, hidden_size, num_layers, bias, dropout, bidirectional, proj_size)
    names = tuple(
        tuple((spec.stem, spec.name(layer, reverse)) for spec in _layout(stack, layer))
        for layer, reverse in _places(stack)
    )
    shapes = tuple(tuple(spec.shape for spec in _layout(stack, layer)) for layer, _ in _places(stack))
    return Facts(stack, names, shapes, state_sizes(cell.graph, hidden_size, proj_size))


def _layout(stack: Stack, layer: int) -> tuple[ParameterSpec, ...]:
    below = (stack.proj_size or stack.hidden_size) * stack.directions
    width = stack.input_size if layer == 0 else below
    return parameter_layout(stack.graph, width, stack.hidden_size, stack.bias, stack.proj_size)


def _places(stack: Stack) -> list[tuple[int, bool]]:
    """(layer, reverse) in the order of torch.nn."""
    directions = (False, True) if stack.bidirectional else (False,)
    return [(layer, reverse) for layer in range(stack.num_layers) for reverse in directions]


# These two plan. A compiler of torch takes what they return as constants and does not look inside (see
# `cellwise.runtime.compiling`), so they must depend on nothing but their arguments and what it guards on.


@untraced
def facts_of(*definition: *Definition) -> Facts:
    """What follows from the definition of a layer, worked out once."""
    return _facts_of(definition)


@untraced
def choice_for(
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
            what=f"this {definition[0].name} layer in torch.onnx.export",
            reason="ONNX has operators for torch.nn's RNN, LSTM and GRU alone, called as torch.nn calls them "
            "(cellwise.revert(model) brings those back)",
            willing="'reference', whose program holds every step of x and is good for so many steps alone",
        )
    setting = dispatch.setting_of(device, dtype, resets, traced, recompute)
    return dispatch.choice(backend, _facts_of(definition).stack, setting, workload)


STEPS = "cpu"  # the backend that makes single steps


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

    @property
    def cell(self) -> Cell:
        """The definition that this layer runs."""
        raise NotImplementedError

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

    def _definition(self) -> Definition:
        return (
            self.cell,
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

    def _run(self, x: Any, state: Any, lengths: Lengths | None, resets: Tensor | None) -> tuple[Any, Any]:
        traced = is_tracing()
        definition = fixed(self._definition()) if traced else self._definition()
        facts = facts_of(*definition)
        try:
            data, weights, dtype = self._checked(x, facts)
        except InputError:
            if isinstance(x, Proxy):
                return self._as_node(x, state, lengths, resets)
            raise
        asked = (self._backend, data.device, dtype, resets is not None, traced, self.recompute)
        # A program that is traced is good for other sizes too.
        surplus = traced and dispatch.CHOICES[choice_for(*asked, None, *definition)].backend.takes_surplus
        unbatched = data is x and data.dim() == 2
        if unbatched:
            x, lengths, resets = self._as_batch(x, lengths, resets)
        form = form_of(x, self.batch_first, lengths, resets, surplus)
        workload = None if traced else self._workload(form.sequences, weights)
        backend, stack, prepared = dispatch.CHOICES[choice_for(*asked, workload, *definition)]
        states = self._states(state, form.sequences.batch, data, unbatched, facts)
        states = tuple([form.sort(each) for each in states])
        call = Call(form.sequences, states, weights, self.training, prepared)
        output, finals = backend.run(stack, call)
        output = form.output(output)
        finals = tuple([form.unsort(final) for final in finals])
        if unbatched:
            output = output.squeeze(0 if self.batch_first else 1)
            finals = tuple([final.squeeze(1) for final in finals])
        return output, finals[0] if len(finals) == 1 else finals

    def _checked(self, x: Any, facts: Facts) -> tuple[Tensor, tuple[Weights, ...], torch.dtype]:
        """The numbers of an input that fits this layer, the weights as they are now, and the dtype to compute in."""
        packed = isinstance(x, PackedSequence)
        data = x.data if packed else x
        if not isinstance(data, Tensor):
            raise InputError(
                f"{type(self).__name__} takes a tensor or a PackedSequence; got a {type(x).__name__}."
            )
        weights = self._weights(facts.names)
        first = next(iter(weights[0].by_stem.values()))
        check_input(type(self).__name__, data, first, self.input_size, packed)
        if not packed:
            check_steps(data.shape[1 if self.batch_first and data.dim() == 3 else 0])
        alike = check_weights(
            type(self).__name__, [each.by_stem for each in weights], facts.names, facts.shapes, data
        )
        # Under autocast weights may have other dtypes than the input; then only what casts them can compute.
        return data, weights, data.dtype if alike else torch.get_autocast_dtype(data.device.type)

    def _as_node(self, x: Proxy, state: Any, lengths: Any, resets: Any) -> Any:
        """One call of this module in a graph of torch.fx, as its tracers make one of torch.nn's modules."""
        options = {"lengths": lengths, "resets": resets}
        given = {name: value for name, value in options.items() if value is not None}
        tracer: Any = x.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(self), (x, state), given)

    def _explain(
        self, x: Any, state: Any, lengths: Lengths | None, resets: Tensor | None
    ) -> dispatch.Explanation:
        facts = facts_of(*self._definition())
        data, weights, dtype = self._checked(x, facts)
        unbatched = data is x and data.dim() == 2
        batch = self._as_batch(x, lengths, resets) if unbatched else (x, lengths, resets)
        form = form_of(batch[0], self.batch_first, batch[1], batch[2])
        self._states(state, form.sequences.batch, data, unbatched, facts)
        setting = dispatch.setting_of(data.device, dtype, resets is not None, False, self.recompute)
        workload = self._workload(form.sequences, weights)
        return dispatch.explain(self._backend, facts.stack, setting, workload)

    def _workload(self, sequences: Sequences, weights: tuple[Weights, ...]) -> dispatch.Workload | None:
        """How much a call computes, if its backend is to be chosen by that and its sizes are numbers."""
        data = sequences.data
        if self._backend != dispatch.AUTO or type(data) not in (Tensor, nn.Parameter) or not data.is_cpu:
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

    def _state_shapes(self, batch: int, facts: Facts) -> list[tuple[int, int, int]]:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        return [(rows, batch, size) for size in facts.state_sizes]

    def _states(
        self, state: Any, batch: int, data: Tensor, unbatched: bool, facts: Facts
    ) -> tuple[Tensor, ...]:
        shapes = self._state_shapes(batch, facts)
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
            LayerError: the layer is bidirectional, and so needs the end of a sequence before its beginning.
        """
        if self.bidirectional:
            raise LayerError(
                "A bidirectional layer cannot be streamed: its reverse direction starts at the end of the sequence. "
                "Stream a layer with bidirectional=False."
            )

        return Stream(self, batch_size)

    def _stream_sizes(self) -> tuple[int, torch.dtype, torch.device]:
        weight = self._first_weight()
        return self.proj_size or self.hidden_size, weight.dtype, weight.device

    def _first_weight(self) -> Tensor:
        return next(iter(self._weights(facts_of(*self._definition()).names)[0].by_stem.values()))

    def _stream_state(self, batch: int, state: Any = None) -> tuple[Tensor, ...]:
        facts = facts_of(*self._definition())
        return self._states(state, batch, self._first_weight(), False, facts)

    def _stream_step(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        definition = self._definition()
        data, weights, dtype = self._checked(x.unsqueeze(0), facts_of(*definition))
        form = form_of(data, batch_first=False, lengths=None, resets=None)
        workload = self._workload(form.sequences, weights)
        number = choice_for(self._backend, data.device, dtype, False, False, False, workload, *definition)
        backend, stack, prepared = dispatch.CHOICES[number]
        output, finals = backend.run(stack, Call(form.sequences, states, weights, False, prepared))
        return form.output(output)[0], finals

    def _stepper(self, batch_size: int) -> tuple[Stepper, Watched] | None:
        """The kernels for single steps on the weights as they are now, and these watched; None if they cannot run."""
        definition = self._definition()
        facts = facts_of(*definition)
        names = tuple(name for each in facts.names for _, name in each)
        if self._backend not in ("auto", STEPS) or any(name not in self._parameters for name in names):
            return None
        weights = self._weights(facts.names)
        first = next(iter(weights[0].by_stem.values()))
        if any(weight.is_inference() for each in weights for weight in each.by_stem.values()):
            return None
        stems = [each.by_stem for each in weights]
        if not check_weights(type(self).__name__, stems, facts.names, facts.shapes, first):
            return None  # under autocast
        explanation = dispatch.explain(
            STEPS, facts.stack, dispatch.setting_of(first.device, first.dtype, False, traced=False)
        )
        if explanation.chosen is None:
            return None
        number = choice_for(STEPS, first.device, first.dtype, False, False, False, None, *definition)
        backend, stack, prepared = dispatch.CHOICES[number]
        made = backend.stepper(stack, prepared, weights, batch_size)
        return None if made is None else (made, Watched(self._parameters, names))

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
        ):
            value = getattr(self, name)
            if value != default:
                shown += f", {name}={value!r}" if isinstance(value, str) else f", {name}={value}"
        return shown


class Recurrent(RecurrentLayer):
    """A recurrent layer of any cell, with the interface of torch.nn.GRU.

    Called as `layer(x, state=None, *, lengths=None, resets=None) -> (output, state)`:

    - x: (T, B, D), with `batch_first` (B, T, D), for one sequence (T, D), or a PackedSequence.
    - state: for each state of the cell (L * directions, B, H), without B for one sequence; a tensor for a cell of
      one state, a tuple of tensors for others. Zeros if None.
    - lengths: (B,) valid steps of each row, unsorted, from 0 to T. Beyond them nothing is computed, the output is
      zero, the final state is that of the last valid step, and the reverse direction starts there.
    - resets: (T, B), with `batch_first` (B, T), bool. The state of a row is zero before that step; with
      `bidirectional` the boundary holds in both directions, so a row equals its pieces run apart.
    - output: like x, with directions * H in place of D; state: as it is taken.

    Parameters are named, shaped and ordered as in torch.nn: `weight_ih_l{k}` (G*H, D), `weight_hh_l{k}` (G*H, H),
    `bias_ih_l{k}`, `bias_hh_l{k}` (G*H,), with only the rows of gates that the cell asks for, then the cell's own.
    They start uniform within 1 / sqrt(H) of zero, as in torch.nn.

    `layer.recompute = True` saves memory in training on a CPU: the backward pass computes each step again from the
    states before it, and the forward pass keeps no tape for it.

    Under torch.compile and torch.export each layer and direction is one operator, for all T and B if sizes are dynamic
    (those of `lengths`, `resets` and `state` with those of x; torch makes programs of their own for T = 1 and B = 1).
    Give `lengths`, or pack outside: torch's compiler does not go into `pack_padded_sequence`.

    Args:
        cell: a Cell class, an instance of one, or the name of a known cell.
        input_size: D.
        hidden_size: H.
        backend: "auto", or one by name; also an attribute that may be set later.

    Raises:
        LayerError, TypeError, ValueError: an argument that cannot be.
        UnknownCellError: no cell has this name.
        CellError: the cell's equations are wrong.

    >>> layer = Recurrent("lstm-peephole", 3, 4, num_layers=2)
    >>> output, (h, c) = layer(torch.zeros(7, 5, 3))
    >>> output.shape, h.shape
    (torch.Size([7, 5, 4]), torch.Size([2, 5, 4]))
    """

    proj_size = 0

    def __init__(
        self,
        cell: str | type[Cell] | Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        backend: str = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._cell = cells.get(cell)
        self.input_size = _positive("input_size", input_size)
        self.hidden_size = _positive("hidden_size", hidden_size)
        self.num_layers = _positive("num_layers", num_layers)
        self.bias = _boolean("bias", bias)
        self.batch_first = _boolean("batch_first", batch_first)
        self.bidirectional = _boolean("bidirectional", bidirectional)
        self.dropout = _probability(dropout, num_layers)
        self.backend = backend
        for name, shape in self._shapes():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        stack = facts_of(*self._definition()).stack
        return [
            (spec.name(layer, reverse), spec.shape)
            for layer, reverse in _places(stack)
            for spec in _layout(stack, layer)
        ]

    @property
    def cell(self) -> Cell:
        return self._cell

    def reset_parameters(self) -> None:
        """Draw all weights anew: uniform within 1 / sqrt(H) of zero, own parameters as the cell says."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        own = {parameter.name: parameter.initial for parameter in own_parameters(type(self._cell))}
        for each in facts_of(*self._definition()).names:
            for stem, name in each:
                initial = own.get(stem)
                low, high = initial if isinstance(initial, tuple) else (-bound, bound)
                if isinstance(initial, (int, float)):
                    init.constant_(getattr(self, name), initial)
                else:
                    init.uniform_(getattr(self, name), low, high)

    def forward(
        self, x: Any, state: Any = None, *, lengths: Lengths | None = None, resets: Tensor | None = None
    ) -> tuple[Any, Any]:
        """Run over a batch of sequences; shapes as in the class's description.

        Raises:
            InputError: an argument does not fit the layer.
            BackendError: the backend asked for by name cannot run this.
        """
        return self._run(x, state, lengths, resets)

    def extra_repr(self) -> str:
        return f"{self._cell.name}, {super().extra_repr()}"


def explain(
    layer: nn.Module,
    x: Tensor | PackedSequence,
    state: Any = None,
    *,
    lengths: Lengths | None = None,
    resets: Tensor | None = None,
) -> dispatch.Explanation:
    """Which backend would run this call of a layer, and why not the others. Nothing is run.

    >>> print(explain(Recurrent("indrnn", 3, 4), torch.zeros(7, 5, 3)))
    backend='auto' runs on: cpu
      native     cannot: torch has no operator for the equations of IndRNN
      cpu        chosen: fused kernels, forward and backward, compiled by LLVM for this processor
      reference  could: interprets the equations step by step in plain torch; anything, anywhere, slowly

    Raises:
        InputError: an argument does not fit the layer, or it is no layer of cellwise.
    """
    if not isinstance(layer, RecurrentLayer):
        raise InputError(
            f"explain takes a layer of cellwise; got {type(layer).__name__}. Swap it first: cellwise.convert(model)."
        )
    return layer._explain(x, state, lengths, resets)


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
    if value <= 0:
        raise LayerError(f"{name} must be greater than zero")
    return value


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    return value


def _probability(dropout: Any, num_layers: int) -> float:
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
        raise LayerError(
            f"dropout should be a number in range [0, 1], the probability of an element being zeroed; got {dropout!r}"
        )
    if dropout > 0 and num_layers == 1:
        warnings.warn(
            f"dropout={dropout} has no effect with num_layers=1: it stands between layers only", stacklevel=3
        )
    return float(dropout)
