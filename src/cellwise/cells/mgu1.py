from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class MGU1(Cell):
    """Minimal gated unit whose gate sees the state alone (Heck and Salem 2017, variant 1)."""

    gates = ("f", "n")
    states = ("h",)

    def step(self, x, h):
        f = sigmoid(h.f)
        n = tanh(x.n + (f * h).n)
        return (1 - f) * h + f * n
