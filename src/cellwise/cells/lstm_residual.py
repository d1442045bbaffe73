from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import linear, sigmoid, tanh


class ResidualLSTM(Cell):
    """Peephole LSTM whose output adds the input to its projected memory (Kim, El-Khamy and Lee 2017)."""

    name = "lstm-residual"
    gates = ("i", "f", "g", "o", "p")
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
        return o * (linear(tanh(c).p) + linear(x.p)), c
