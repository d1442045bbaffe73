"""cellwise: recurrent neural networks from one definition."""

from typing import TYPE_CHECKING, Any

from cellwise import _lazy, cells
from cellwise._version import __version__
from cellwise.cells.base import Cell, Initial, Scalar, Vector
from cellwise.errors import CellwiseError, CellwiseWarning
from cellwise.graph.functions import (
    amax,
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
    mean,
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
from cellwise.graph.functions import (
    sum as sum,
)  # not in __all__: a star import leaves Python's own in its place
from cellwise.graph.gates import block_diagonal, cumsum, fixed, low_rank, ready, skew, symmetric_skew
from cellwise.graph.parts import layer_norm, rms_norm, softmax
from cellwise.graph.randomness import dropout, uniform, zoneout

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
    "Initial",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "Scalar",
    "Vector",
    "__version__",
    "amax",
    "block_diagonal",
    "cells",
    "clamp",
    "convert",
    "cos",
    "cumsum",
    "dropout",
    "elu",
    "erf",
    "exp",
    "explain",
    "fixed",
    "floor",
    "gelu",
    "hard_sigmoid",
    "hard_tanh",
    "layer_norm",
    "linear",
    "log",
    "low_rank",
    "maximum",
    "mean",
    "minimum",
    "ready",
    "relu",
    "revert",
    "rms_norm",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "skew",
    "softmax",
    "softplus",
    "sqrt",
    "stop_gradient",
    "symmetric_skew",
    "tanh",
    "uniform",
    "where",
    "zoneout",
]


def __getattr__(name: str) -> Any:
    return _lazy.find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_lazy.follow_torch()
