import math

from cellwise.cells.base import Cell
from cellwise.graph.functions import log, sigmoid, tanh


class TimeAwareLSTM(Cell):
    """LSTM that forgets its short-term memory by the time since the last step (T-LSTM, Baytas et al. 2017).

    `dt`, at least 0, is that time; where a call gives none it is 1. At 0 nothing is forgotten: the step is an LSTM's.
    """

    name = "time-aware-lstm"
    gates = ("i", "f", "g", "o", "s")
    states = ("h", "c")
    inputs = {"dt": 1.0}  # noqa: RUF012  (a table, as gates are)

    def step(self, x, h, c, dt):
        short = tanh(c.s)
        c = c - short + short / log(math.e + dt)
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        g = tanh(x.g + h.g)
        o = sigmoid(x.o + h.o)
        c = f * c + i * g
        return o * tanh(c), c
