from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class CFN(Cell):
    """Chaos-free network, whose state decays to zero without input (Laurent and von Brecht 2017)."""

    gates = ("f", "i", "n")
    states = ("h",)

    def step(self, x, h):
        f = sigmoid(x.f + h.f)
        i = sigmoid(x.i + h.i)
        return f * tanh(h) + i * tanh(x.n)
