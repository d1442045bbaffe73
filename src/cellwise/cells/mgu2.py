from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class MGU2(Cell):
    """Minimal gated unit whose gate sees the state alone, without a bias (Heck and Salem 2017, variant 2)."""

    gates = ("f", "n")
    states = ("h",)

    def step(self, x, h):
        f = sigmoid(linear(h.f))
        n = tanh(x.n + (f * h).n)
        return (1 - f) * h + f * n
