from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class WorkingMemoryLSTM(Cell):
    """LSTM whose gates see the memory cell through matrices and tanh (Landi et al. 2021)."""

    name = "lstm-wmc"
    gates = ("i", "f", "g", "o", "mi", "mf", "mo")
    states = ("h", "c")

    def step(self, x, h, c):
        i = sigmoid(x.i + h.i + tanh(c.mi))
        f = sigmoid(x.f + h.f + tanh(c.mf))
        g = tanh(x.g + h.g)
        c = f * c + i * g
        o = sigmoid(x.o + h.o + tanh(c.mo))
        return o * tanh(c), c
