"""The one way in which every recurrent layer is called, and the layer for any cell."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.nn.utils.rnn import PackedSequence

from cellwise import cells
from cellwise.backends.base import Call, Stack, Weights
from cellwise.cells.base import Cell, own_parameters
from cellwise.errors import InputError, LayerError
from cellwise.nn.checks import as_states, check_input, check_states, check_steps
from cellwise.plan import ParameterSpec, SequencePlan, parameter_layout, plan_of, state_sizes
from cellwise.runtime import dispatch
from cellwise.runtime.sequences import Form, Lengths, form_of
from cellwise.runtime.stream import Stream


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

    @property
    def cell(self) -> Cell:
        """The definition that this layer runs."""
        raise NotImplementedError

    @property
    def backend(self) -> str:
        """The backend asked for: "auto", "reference" or "native". May be set at any time.

        Raises, when set:
            UnknownBackendError: there is none of this name.
        """
        return self._backend

    @backend.setter
    def backend(self, name: str) -> None:
        self._backend = dispatch.check_name(name)

    @property
    def plan(self) -> SequencePlan:
        """How the cell runs over a sequence."""
        return plan_of(self.cell.graph)

    def _stack(self) -> Stack:
        return Stack(
            self.plan,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bias,
            self.dropout,
            self.bidirectional,
            self.proj_size,
        )

    def _layout(self, layer: int) -> tuple[ParameterSpec, ...]:
        below = (self.proj_size or self.hidden_size) * (2 if self.bidirectional else 1)
        width = self.input_size if layer == 0 else below
        return parameter_layout(self.plan, width, self.hidden_size, self.bias, self.proj_size)

    def _weights(self) -> tuple[Weights, ...]:
        # Looked up by name on every call: parametrizations, functional_call and weight hooks put others there.
        return tuple(
            Weights({spec.stem: getattr(self, spec.name(layer, reverse)) for spec in self._layout(layer)})
            for layer in range(self.num_layers)
            for reverse in ((False, True) if self.bidirectional else (False,))
        )

    def _run(self, x: Any, state: Any, lengths: Lengths | None, resets: Tensor | None) -> tuple[Any, Any]:
        form, call, unbatched = self._read(x, state, lengths, resets)
        data, finals = dispatch.run(self._backend, self._stack(), call)
        finals = tuple(form.unsort(final) for final in finals)
        output = form.output(data)
        if unbatched:
            output = output.squeeze(0 if self.batch_first else 1)
            finals = tuple(final.squeeze(1) for final in finals)
        return output, finals[0] if len(finals) == 1 else finals

    def _read(
        self, x: Any, state: Any, lengths: Lengths | None, resets: Tensor | None
    ) -> tuple[Form, Call, bool]:
        """Check what the caller gave and bring it to the internal form; also whether it was a single sequence."""
        weights = self._weights()
        packed = isinstance(x, PackedSequence)
        data = x.data if packed else x
        if not isinstance(data, Tensor):
            raise InputError(
                f"{type(self).__name__} takes a tensor or a PackedSequence; got a {type(x).__name__}."
            )
        check_input(
            type(self).__name__, data, next(iter(weights[0].by_stem.values())), self.input_size, packed
        )
        unbatched = not packed and data.dim() == 2
        if unbatched:
            x, lengths, resets = self._as_batch(x, lengths, resets)
        if not packed:
            check_steps(x.shape[1 if self.batch_first else 0])
        form = form_of(x, self.batch_first, lengths, resets)
        states = self._states(state, form.sequences.batch, data, unbatched)
        call = Call(form.sequences, tuple(form.sort(each) for each in states), weights, self.training)
        return form, call, unbatched

    def _as_batch(
        self, x: Tensor, lengths: Lengths | None, resets: Tensor | None
    ) -> tuple[Tensor, Lengths | None, Tensor | None]:
        """A single sequence (T, D) as a batch of one; its `lengths` is one number, its `resets` has shape (T,)."""
        place = 0 if self.batch_first else 1
        if lengths is not None:
            lengths = torch.as_tensor(lengths).reshape(-1)
        if resets is not None and resets.dim() == 1:
            resets = resets.unsqueeze(place)
        return x.unsqueeze(place), lengths, resets

    def _state_shapes(self, batch: int) -> list[tuple[int, int, int]]:
        rows = self.num_layers * (2 if self.bidirectional else 1)
        return [(rows, batch, size) for size in state_sizes(self.plan, self.hidden_size, self.proj_size)]

    def _states(self, state: Any, batch: int, data: Tensor, unbatched: bool) -> tuple[Tensor, ...]:
        shapes = self._state_shapes(batch)
        if state is None:
            return tuple(torch.zeros(shape, dtype=data.dtype, device=data.device) for shape in shapes)
        states = as_states(state, len(shapes), type(self).__name__)
        check_states(states, shapes, unbatched)
        return tuple(each.unsqueeze(1) for each in states) if unbatched else states

    def stream(self, batch_size: int = 1) -> Stream:
        """A stepper that keeps its state between calls: `y = stream(x_t)`, x_t of shape (B, D), y (B, H).

        It sees the layer's weights as they are at each step.

        Raises:
            LayerError: the layer is bidirectional, and so needs the end of a sequence before its beginning.
        """
        if self.bidirectional:
            raise LayerError(
                "A bidirectional layer cannot be streamed: its reverse direction starts at the end of the sequence. "
                "Stream a layer with bidirectional=False."
            )

        def run(x: Tensor, state: Any) -> tuple[Tensor, Any]:
            states = state if isinstance(state, tuple) else (state,)
            form = form_of(x, batch_first=False, lengths=None, resets=None)
            call = Call(form.sequences, states, self._weights(), training=False)
            data, finals = dispatch.run(self._backend, self._stack(), call)
            return form.output(data), finals[0] if len(finals) == 1 else finals

        def zeros() -> Any:
            weight = next(iter(self._weights()[0].by_stem.values()))
            states = tuple(
                torch.zeros(shape, dtype=weight.dtype, device=weight.device)
                for shape in self._state_shapes(batch_size)
            )
            return states[0] if len(states) == 1 else states

        return Stream(run, zeros, batch_size, self.input_size)

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
        for layer in range(num_layers):
            for reverse in (False, True) if bidirectional else (False,):
                for spec in self._layout(layer):
                    value = nn.Parameter(torch.empty(spec.shape, device=device, dtype=dtype))
                    self.register_parameter(spec.name(layer, reverse), value)
        self.reset_parameters()

    @property
    def cell(self) -> Cell:
        return self._cell

    def reset_parameters(self) -> None:
        """Draw all weights anew: uniform within 1 / sqrt(H) of zero, own parameters as the cell says."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        own = {parameter.name: parameter.initial for parameter in own_parameters(type(self._cell))}
        for layer in range(self.num_layers):
            for reverse in (False, True) if self.bidirectional else (False,):
                for spec in self._layout(layer):
                    initial = own.get(spec.stem)
                    low, high = initial if isinstance(initial, tuple) else (-bound, bound)
                    parameter = getattr(self, spec.name(layer, reverse))
                    if isinstance(initial, (int, float)):
                        init.constant_(parameter, initial)
                    else:
                        init.uniform_(parameter, low, high)

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
    _, call, _ = layer._read(x, state, lengths, resets)
    return dispatch.explain(layer.backend, layer._stack(), call)


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
