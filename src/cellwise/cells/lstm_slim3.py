from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh


class SlimLSTM3(Cell):
    """LSTM whose gates are learned constants (Lu and Salem 2017, variant 3)."""

    name = "lstm-slim3"
    gates = ("g",)
    states = ("h", "c")
    b_i = Vector()
    b_f = Vector()
    b_o = Vector()

    def step(self, x, h, c):
        g = tanh(x.g + h.g)
        c = sigmoid(self.b_f) * c + sigmoid(self.b_i) * g
        return sigmoid(self.b_o) * tanh(c), c
