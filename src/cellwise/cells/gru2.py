from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class GRU2(Cell):
    """GRU whose gates see the state alone, without a bias (Dey and Salem 2017, variant 2)."""

    gates = ("r", "z", "n")
    states = ("h",)

    def step(self, x, h):
        r = sigmoid(linear(h.r))
        z = sigmoid(linear(h.z))
        n = tanh(x.n + (r * h).n)
        return (1 - z) * h + z * n
