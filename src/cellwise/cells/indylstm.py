from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh


class IndyLSTM(Cell):
    """LSTM in which each unit sees only itself (Gonnet and Deselaers 2019)."""

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    u_i = Vector()
    u_f = Vector()
    u_g = Vector()
    u_o = Vector()

    def step(self, x, h, c):
        i = sigmoid(x.i + self.u_i * h)
        f = sigmoid(x.f + self.u_f * h)
        g = tanh(x.g + self.u_g * h)
        o = sigmoid(x.o + self.u_o * h)
        c = f * c + i * g
        return o * tanh(c), c
