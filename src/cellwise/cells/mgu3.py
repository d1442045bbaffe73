from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh


class MGU3(Cell):
    """Minimal gated unit whose gate is a learned constant (Heck and Salem 2017, variant 3)."""

    gates = ("n",)
    states = ("h",)
    b_f = Vector()

    def step(self, x, h):
        f = sigmoid(self.b_f)
        n = tanh(x.n + (f * h).n)
        return (1 - f) * h + f * n
