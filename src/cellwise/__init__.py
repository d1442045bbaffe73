"""cellwise: recurrent neural networks from one definition."""

from typing import TYPE_CHECKING, Any

from cellwise import _lazy, cells
from cellwise._version import __version__
from cellwise.cells.base import Cell, Scalar, Vector
from cellwise.errors import CellwiseError, CellwiseWarning
from cellwise.graph.functions import (
    clamp,
    cos,
    elu,
    erf,
    exp,
    floor,
    gelu,
    hard_sigmoid,
    hard_tanh,
    linear,
    log,
    maximum,
    minimum,
    relu,
    sigmoid,
    sign,
    silu,
    sin,
    softplus,
    sqrt,
    stop_gradient,
    tanh,
    where,
)

if TYPE_CHECKING:
    from cellwise.nn import (
        GRU,
        LSTM,
        RNN,
        GRUCell,
        LSTMCell,
        Recurrent,
        RNNCell,
        explain,
    )
    from cellwise.nn.convert import convert, revert

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "CellwiseError",
    "CellwiseWarning",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "Scalar",
    "Vector",
    "__version__",
    "cells",
    "clamp",
    "convert",
    "cos",
    "elu",
    "erf",
    "exp",
    "explain",
    "floor",
    "gelu",
    "hard_sigmoid",
    "hard_tanh",
    "linear",
    "log",
    "maximum",
    "minimum",
    "relu",
    "revert",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "sqrt",
    "stop_gradient",
    "tanh",
    "where",
]


def __getattr__(name: str) -> Any:
    return _lazy.find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_lazy.follow_torch()
