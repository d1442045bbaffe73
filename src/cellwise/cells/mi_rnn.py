from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import linear, tanh


class MultiplicativeIntegrationRNN(Cell):
    """RNN that multiplies the input's product with the state's, beside their sum (Wu et al. 2016)."""

    name = "mi-rnn"
    gates = ("n",)
    states = ("h",)
    a = Vector(1.0)
    b_x = Vector(0.5)
    b_h = Vector(0.5)
    b = Vector(0.0)

    def step(self, x, h):
        u, v = linear(x.n), linear(h.n)
        return tanh(self.a * u * v + self.b_x * u + self.b_h * v + self.b)
