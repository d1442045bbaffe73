from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class SlimLSTM2(Cell):
    """LSTM whose gates see the state alone, without a bias (Lu and Salem 2017, variant 2)."""

    name = "lstm-slim2"
    gates = ("i", "f", "g", "o")
    states = ("h", "c")

    def step(self, x, h, c):
        i = sigmoid(linear(h.i))
        f = sigmoid(linear(h.f))
        g = tanh(x.g + h.g)
        o = sigmoid(linear(h.o))
        c = f * c + i * g
        return o * tanh(c), c
