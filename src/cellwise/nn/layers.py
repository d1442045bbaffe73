"""The drop-in layers: torch.nn's classes, subclassed, run by cellwise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cellwise.cells import gru, lstm, rnn
from cellwise.cells.base import Cell
from cellwise.errors import InputError, LayerError
from cellwise.nn import plain
from cellwise.nn.checks import check_weight_dropout
from cellwise.nn.definition import key_of
from cellwise.nn.layer import RecurrentLayer
from cellwise.runtime.compiling import is_tracing, traced
from cellwise.runtime.sequences import Lengths

# Made once: a layer asks for its cell and key at every call.
_RNNS = {name: rnn.RNN(nonlinearity=name) for name in ("tanh", "relu")}
_LSTM = lstm.LSTM()
_GRU = gru.GRU()
_RNN_KEYS = {name: key_of(cell) for name, cell in _RNNS.items()}


class _DropIn(RecurrentLayer):
    """The constructor and the call of a torch.nn layer, with a keyword or two more each. Abstract."""

    mode: str

    def __init__(self, *args: Any, backend: str = "auto", weight_dropout: float = 0.0, **kwargs: Any) -> None:
        if "learned_initial" in kwargs:
            name = type(self).__name__
            raise LayerError(
                f"{name} has the parameters of torch.nn.{name} and no others, so no learned_initial; any cell has it "
                f'in cellwise.Recurrent("{name.lower()}", input_size, hidden_size, learned_initial=True).'
            )
        super().__init__(*args, **kwargs)
        self.backend = backend
        if check_weight_dropout(weight_dropout):  # else it has the attributes that it always had
            self.weight_dropout = weight_dropout

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
        else:
            found = plain.call(self, input, hx, lengths, resets)
            if found is not None:
                return found
        return self._run(input, hx, lengths, resets)

    def _is_torchs(self, lengths: Lengths | None, resets: Tensor | None) -> bool:
        """Whether a call is recorded as torch's own operator: by torch.jit.trace and torch.onnx.export, whose programs
        run without cellwise.
        """
        plain = lengths is None and resets is None and self._backend in ("auto", "native")
        plain = plain and not (self.weight_dropout and self.training)
        return plain and (not torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export())


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

    @property
    def _key(self) -> str:
        key = _RNN_KEYS.get(self.nonlinearity)
        return super()._key if key is None else key


class LSTM(_DropIn, nn.LSTM):
    """torch.nn.LSTM: same constructor, weights and results; `backend=` beside it.

    >>> import torch
    >>> output, (h, c) = LSTM(3, 4, proj_size=2, backend="reference")(torch.zeros(7, 5, 3))
    >>> h.shape, c.shape
    (torch.Size([1, 5, 2]), torch.Size([1, 5, 4]))
    """

    _key = key_of(_LSTM)

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

    _key = key_of(_GRU)

    @property
    def cell(self) -> Cell:
        return _GRU


traced(_DropIn)

# What `convert` swaps, and what `revert` swaps back.
DROP_INS: dict[type[nn.Module], type[nn.Module]] = {nn.RNN: RNN, nn.LSTM: LSTM, nn.GRU: GRU}
