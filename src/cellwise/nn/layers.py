"""The drop-in layers: torch.nn's classes, subclassed, run by cellwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import _VF, Tensor, nn
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad

from cellwise.cells import gru, lstm, rnn
from cellwise.cells.base import Cell
from cellwise.errors import InputError
from cellwise.nn.recurrent import RecurrentLayer, facts_of
from cellwise.runtime.compiling import is_tracing, traced
from cellwise.runtime.sequences import Lengths

# Made once: a layer asks for its cell at every call.
_RNNS = {name: rnn.RNN(nonlinearity=name) for name in ("tanh", "relu")}
_LSTM = lstm.LSTM()
_GRU = gru.GRU()


# The shapes of states and of weights in calls that torch's operator is to run, None of others, by all that this is
# decided by. Such a call must cost no more than in torch.nn, where a small one takes 30 us.
Shapes = tuple[list[tuple[int, int, int]], list[tuple[int, ...]]]
_TORCHS: dict[tuple[Any, ...], Shapes | None] = {}
_UNKNOWN: Any = object()
_MOST = 4096  # calls of so many shapes are remembered

_is_recording, _threads = torch.is_grad_enabled, torch.get_num_threads
_is_autocast = torch._C._is_any_autocast_enabled
_OPERATORS: dict[str, Callable[..., Any]] = {
    "RNN_TANH": _VF.rnn_tanh,
    "RNN_RELU": _VF.rnn_relu,
    "GRU": _VF.gru,
    "LSTM": _VF.lstm,
}


class _DropIn(RecurrentLayer):
    """The constructor and the call of a torch.nn layer, with one keyword more each. Abstract."""

    mode: str
    _flat_weights: list[Any]
    _flat_weights_names: list[str]

    def __init__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backend = backend

    def forward(
        self,
        input: Any,
        hx: Any = None,
        state: Any = None,
        lengths: Lengths | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """As in torch.nn; beside it `lengths` and `resets` as in `cellwise.Recurrent`, and `state`, another name of hx.

        Raises:
            InputError: an argument does not fit the layer.
            BackendError: the backend asked for by name cannot run this.
        """
        # None of these may be for keywords alone: torch.onnx.export gives all of them by place.
        if state is not None:
            if hx is not None:
                raise InputError("hx= and state= are two names of one argument; give only one of the two.")
            hx = state
        if is_tracing():
            if self._is_torchs(lengths, resets):
                return super().forward(input, hx)
        elif lengths is None and resets is None:
            facts = self._facts_of(input, hx)
            if facts is not None:
                shapes = _TORCHS.get(facts, _UNKNOWN)
                if shapes is _UNKNOWN:
                    shapes = self._decided(facts, input, hx)
                if shapes is not None:
                    weights = self._weights_for_torch(shapes[1], input)
                    if weights is not None:
                        return self._through_torch(input, hx, weights, shapes[0])
        return self._run(input, hx, lengths, resets)

    def _is_torchs(self, lengths: Lengths | None, resets: Tensor | None) -> bool:
        """Whether a call is recorded as torch's own operator: by torch.jit.trace and torch.onnx.export, whose programs
        run without cellwise.
        """
        plain = lengths is None and resets is None and self._backend in ("auto", "native")
        return plain and (not torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export())

    def _facts_of(self, input: Any, hx: Any) -> tuple[Any, ...] | None:
        """All that decides, of a call that may go straight to torch's operator; at every call, so in one piece."""
        if type(input) is not Tensor:
            return None
        if hx is None:
            states: tuple[Any, ...] | None = None
        elif type(hx) is Tensor:
            states = (hx.shape, hx.dtype)
        elif type(hx) is tuple and len(hx) == 2 and type(hx[0]) is type(hx[1]) is Tensor:
            states = (hx[0].shape, hx[0].dtype, hx[1].shape, hx[1].dtype)
        else:
            return None
        if maybe_current_level() is not None or forward_ad._current_level >= 0:
            return None
        first = self._flat_weights[0]
        return (
            self.mode,
            input.shape,
            self.hidden_size,
            self.num_layers,
            self.bidirectional,
            self.proj_size,
            self.input_size,
            self.bias,
            self.batch_first,
            states,
            input.dtype,
            first is not None and first.dtype,
            input.is_cpu,
            _is_recording() and (input.requires_grad or (first is not None and first.requires_grad)),
            self.training,
            _threads(),
            _is_autocast(),
            self._backend,
            self.recompute,
        )

    def _weights_for_torch(self, shapes: list[tuple[int, ...]], input: Tensor) -> list[Tensor] | None:
        """The weights as torch's operator takes them; None if one has another shape, dtype or device than it should.

        torch.nn does not look: its LSTM reads beyond the end of a weight that is too small.
        """
        weights, mine, dtype, is_cpu = self._flat_weights, self._parameters, input.dtype, input.is_cpu
        for name, weight in zip(self._flat_weights_names, weights, strict=True):
            if mine.get(name) is not weight or weight is None:
                # Parametrizations, functional_call and weight hooks put others there.
                weights = [getattr(self, name) for name in self._flat_weights_names]
                break
        for weight, shape in zip(weights, shapes, strict=True):
            if weight.shape != shape or weight.dtype is not dtype or weight.is_cpu is not is_cpu:
                return None
        return weights

    def _through_torch(
        self, input: Any, hx: Any, weights: list[Tensor], shapes: list[tuple[int, int, int]]
    ) -> tuple[Any, Any]:
        """What torch.nn's forward does with a tensor, and no more than that: all checks have been made."""
        unbatched = input.dim() == 2
        if unbatched:
            input = input.unsqueeze(0 if self.batch_first else 1)
        if hx is None:
            states = [torch.zeros(shape, dtype=input.dtype, device=input.device) for shape in shapes]
            hx = states[0] if len(states) == 1 else states
        elif unbatched:
            hx = hx.unsqueeze(1) if type(hx) is Tensor else [state.unsqueeze(1) for state in hx]
        output, *finals = _OPERATORS[self.mode](
            input,
            hx,
            weights,
            self.bias,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            self.batch_first,
        )
        if unbatched:
            output = output.squeeze(0 if self.batch_first else 1)
            finals = [final.squeeze(1) for final in finals]
        return output, finals[0] if len(finals) == 1 else tuple(finals)

    def _decided(self, facts: tuple[Any, ...], input: Tensor, hx: Any) -> Shapes | None:
        """Decide, after all checks, for this call and all with the same facts."""
        decided = None
        if self._explain(input, hx, None, None).chosen == "native":
            batch = 1 if input.dim() == 2 else input.shape[0 if self.batch_first else 1]
            of_layer = facts_of(*self._definition())
            named = zip(of_layer.names, of_layer.shapes, strict=True)
            by_name = {name: shape for names, of in named for (_, name), shape in zip(names, of, strict=True)}
            weights = [by_name[name] for name in self._flat_weights_names]
            decided = (self._state_shapes(batch, of_layer), weights)
        if len(_TORCHS) >= _MOST:
            _TORCHS.clear()
        _TORCHS[facts] = decided
        return decided


class RNN(_DropIn, nn.RNN):
    """torch.nn.RNN: same constructor, weights and results; `backend=` beside it.

    >>> import torch
    >>> layer = RNN(3, 4, nonlinearity="relu")
    >>> isinstance(layer, torch.nn.RNN), layer(torch.zeros(7, 5, 3))[0].shape
    (True, torch.Size([7, 5, 4]))
    """

    @property
    def cell(self) -> Cell:
        known = _RNNS.get(self.nonlinearity)
        return rnn.RNN(nonlinearity=self.nonlinearity) if known is None else known


class LSTM(_DropIn, nn.LSTM):
    """torch.nn.LSTM: same constructor, weights and results; `backend=` beside it.

    >>> import torch
    >>> output, (h, c) = LSTM(3, 4, proj_size=2, backend="reference")(torch.zeros(7, 5, 3))
    >>> h.shape, c.shape
    (torch.Size([1, 5, 2]), torch.Size([1, 5, 4]))
    """

    @property
    def cell(self) -> Cell:
        return _LSTM


class GRU(_DropIn, nn.GRU):
    """torch.nn.GRU: same constructor, weights and results; `backend=` beside it.

    >>> import torch
    >>> layer = GRU(3, 4, batch_first=True)
    >>> output, h = layer(torch.ones(5, 7, 3), lengths=torch.tensor([7, 1, 0, 3, 2]))
    >>> int(output[3].abs().sum(-1).count_nonzero())
    3
    """

    @property
    def cell(self) -> Cell:
        return _GRU


traced(_DropIn)

# What `convert` swaps, and what `revert` swaps back.
DROP_INS: dict[type[nn.Module], type[nn.Module]] = {nn.RNN: RNN, nn.LSTM: LSTM, nn.GRU: GRU}
