from cellwise.cells.base import Cell
from cellwise.graph.functions import exp, sigmoid, softplus, tanh


class HawkesLSTM(Cell):
    """LSTM in continuous time, whose memory decays to a target (neural Hawkes process, Mei and Eisner 2017).

    x is an event, `dt` the time since the one before, 1 where a call gives none. The output is that right after the
    event; later it follows from the states as open * tanh(target + (c - target) * exp(-rate * dt)).
    """

    name = "hawkes-lstm"
    gates = ("i", "f", "z", "o", "ti", "tf", "d")
    states = ("c", "target", "rate", "open")
    inputs = {"dt": 1.0}  # noqa: RUF012  (a table, as gates are)
    output = "h"

    def step(self, x, c, target, rate, open, dt):
        c = target + (c - target) * exp(-rate * dt)
        h = open * tanh(c)
        z = 2 * sigmoid(x.z + h.z) - 1
        c = sigmoid(x.f + h.f) * c + sigmoid(x.i + h.i) * z
        target = sigmoid(x.tf + h.tf) * target + sigmoid(x.ti + h.ti) * z
        rate = softplus(x.d + h.d)
        open = sigmoid(x.o + h.o)
        return open * tanh(c), c, target, rate, open
