"""The drop-in cells: torch.nn's classes for one step, subclassed."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from cellwise.backends.base import Sequences, Weights
from cellwise.backends.reference.loop import run_direction
from cellwise.cells import gru, lstm, rnn
from cellwise.cells.base import Cell
from cellwise.errors import InputError
from cellwise.nn.checks import as_states, check_states, check_weights
from cellwise.plan import parameter_layout
from cellwise.runtime import dispatch


class _DropInCell(nn.RNNCellBase):
    """The constructor and the call of a torch.nn cell, with `backend=` beside it. Abstract."""

    _backend: str = "auto"

    def __init__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.backend = backend

    @property
    def cell(self) -> Cell:
        """The definition that this module runs."""
        raise NotImplementedError

    @property
    def backend(self) -> str:
        """The backend asked for: "auto" and "native" are torch's own operator, "reference" the equations."""
        return self._backend

    @backend.setter
    def backend(self, name: str) -> None:
        self._backend = dispatch.check_name(name)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """One step, as in torch.nn: input (B, D) or (D,), hx (B, H) or (H,), a pair of them for the LSTM.

        Raises:
            RuntimeError, ValueError: as torch.nn raises them.
        """
        if self._backend != "reference":
            return super().forward(input, hx)
        name = type(self).__name__
        given = () if hx is None else as_states(hx, len(self.cell.states), name)
        names = ["hidden"] if len(given) == 1 else [f"hx[{i}]" for i in range(len(given))]
        for tensor, what in ((input, "input"), *zip(given, names, strict=True)):
            if tensor.dim() not in (1, 2):
                raise InputError(f"{name}: Expected {what} to be 1D or 2D, got {tensor.dim()}D instead")
        alone = input.dim() == 1
        x = input.unsqueeze(0) if alone else input
        states = tuple(state.unsqueeze(0) if alone else state for state in given)
        states = states or (x.new_zeros(x.shape[0], self.hidden_size),) * len(self.cell.states)
        self._check(x, states)
        new = self._interpret(x, states)
        new = tuple(state.squeeze(0) for state in new) if alone else new
        return new[0] if len(new) == 1 else new

    def _check(self, x: Tensor, states: tuple[Tensor, ...]) -> None:
        if x.shape[1] != self.input_size:
            raise InputError(
                f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}"
            )
        for i, state in enumerate(states):
            if state.shape[0] != x.shape[0]:
                raise InputError(
                    f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size {state.shape[0]}"
                )
            if state.shape[1] != self.hidden_size:
                raise InputError(
                    f"hidden{i} has inconsistent hidden_size: got {state.shape[1]}, expected {self.hidden_size}"
                )
        wanted = [(1, *state.shape) for state in states]
        check_states([state.unsqueeze(0) for state in states], wanted, False, x)

    def _interpret(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        graph = self.cell.graph
        layout = parameter_layout(graph, self.input_size, self.hidden_size, self.bias)
        weights = Weights({spec.stem: getattr(self, spec.stem) for spec in layout})
        names = [[(spec.stem, spec.stem) for spec in layout]]
        check_weights(type(self).__name__, [weights.by_stem], names, [[spec.shape for spec in layout]], x)
        return run_direction(graph, weights, Sequences(x, 1, x.shape[0]), states, False)[1]

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", backend={self._backend!r}" if self._backend != "auto" else "")


class RNNCell(_DropInCell, nn.RNNCell):
    """torch.nn.RNNCell: same constructor, weights and results; `backend=` beside it."""

    @property
    def cell(self) -> Cell:
        if self.nonlinearity not in ("tanh", "relu"):
            raise InputError(f"Unknown nonlinearity: {self.nonlinearity}")
        return rnn.RNN(nonlinearity=self.nonlinearity)


class LSTMCell(_DropInCell, nn.LSTMCell):
    """torch.nn.LSTMCell: same constructor, weights and results; `backend=` beside it."""

    @property
    def cell(self) -> Cell:
        return lstm.LSTM()


class GRUCell(_DropInCell, nn.GRUCell):
    """torch.nn.GRUCell: same constructor, weights and results; `backend=` beside it."""

    @property
    def cell(self) -> Cell:
        return gru.GRU()
