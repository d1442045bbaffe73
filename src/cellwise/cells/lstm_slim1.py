from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class SlimLSTM1(Cell):
    """LSTM whose gates see the state alone (Lu and Salem 2017, variant 1)."""

    name = "lstm-slim1"
    gates = ("i", "f", "g", "o")
    states = ("h", "c")

    def step(self, x, h, c):
        i = sigmoid(h.i)
        f = sigmoid(h.f)
        g = tanh(x.g + h.g)
        o = sigmoid(h.o)
        c = f * c + i * g
        return o * tanh(c), c
