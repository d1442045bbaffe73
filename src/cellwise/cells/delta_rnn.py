from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import linear, sigmoid, tanh


class DeltaRNN(Cell):
    """Differential state network: candidate and gate share the input's product (Ororbia, Mikolov and Reitter 2017)."""

    name = "delta-rnn"
    gates = ("n",)
    states = ("h",)
    a = Vector(1.0)
    b_x = Vector(1.0)
    b_h = Vector(1.0)
    b_z = Vector(0.0)
    b_r = Vector(0.0)

    def step(self, x, h):
        u, v = linear(x.n), linear(h.n)
        z = tanh(self.a * u * v + self.b_x * u + self.b_h * v + self.b_z)
        r = sigmoid(u + self.b_r)
        return tanh((1 - r) * z + r * h)
