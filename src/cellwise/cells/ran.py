from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class RAN(Cell):
    """Recurrent additive network: a gated sum of inputs and nothing else (Lee, Levy and Zettlemoyer 2017)."""

    gates = ("n", "i", "f")
    states = ("h", "c")

    def step(self, x, h, c):
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        c = i * linear(x.n) + f * c
        return tanh(c), c
