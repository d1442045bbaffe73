from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class MultiplicativeLSTM(Cell):
    """LSTM whose gates see the product of input and state instead of the state (Krause et al. 2016)."""

    name = "multiplicative-lstm"
    gates = ("m", "i", "f", "g", "o")
    states = ("h", "c")

    def step(self, x, h, c):
        m = linear(x.m) * linear(h.m)
        i = sigmoid(x.i + m.i)
        f = sigmoid(x.f + m.f)
        g = tanh(x.g + m.g)
        o = sigmoid(x.o + m.o)
        c = f * c + i * g
        return o * tanh(c), c
