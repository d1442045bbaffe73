from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class ResetBeforeGRU(Cell):
    """Gated recurrent unit as first published, reset before the matrix product (Cho et al. 2014)."""

    name = "gru-reset-before"
    gates = ("r", "z", "n")
    states = ("h",)

    def step(self, x, h):
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + (r * h).n)
        return (1 - z) * n + z * h
