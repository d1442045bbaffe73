"""Layers for torch: the drop-in ones, the one for any cell, and the swap of a whole model."""

from cellwise.nn import tools as tools  # torch is told of the layers
from cellwise.nn.cells import GRUCell, LSTMCell, RNNCell
from cellwise.nn.convert import convert, revert
from cellwise.nn.layers import GRU, LSTM, RNN
from cellwise.nn.recurrent import Recurrent, explain

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "convert",
    "explain",
    "revert",
]
