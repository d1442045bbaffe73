from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh


class PeepholeLSTM(Cell):
    """LSTM whose gates also see the memory cell, one weight per unit (Gers and Schmidhuber 2000)."""

    name = "lstm-peephole"
    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    p_i = Vector()
    p_f = Vector()
    p_o = Vector()

    def step(self, x, h, c):
        i = sigmoid(x.i + h.i + self.p_i * c)
        f = sigmoid(x.f + h.f + self.p_f * c)
        g = tanh(x.g + h.g)
        c = f * c + i * g
        o = sigmoid(x.o + h.o + self.p_o * c)
        return o * tanh(c), c
