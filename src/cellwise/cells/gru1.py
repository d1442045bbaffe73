from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class GRU1(Cell):
    """GRU whose gates see the state alone (Dey and Salem 2017, variant 1)."""

    gates = ("r", "z", "n")
    states = ("h",)

    def step(self, x, h):
        r = sigmoid(h.r)
        z = sigmoid(h.z)
        n = tanh(x.n + (r * h).n)
        return (1 - z) * h + z * n
