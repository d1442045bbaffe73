from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class LSTM(Cell):
    """Long short-term memory with a forget gate (Hochreiter and Schmidhuber 1997; the form of torch.nn.LSTM)."""

    gates = ("i", "f", "g", "o")
    states = ("h", "c")

    def step(self, x, h, c):
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        g = tanh(x.g + h.g)
        o = sigmoid(x.o + h.o)
        c = f * c + i * g
        return o * tanh(c), c
