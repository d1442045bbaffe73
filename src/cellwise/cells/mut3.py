from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class MUT3(Cell):
    """The third of three cells found by search (Jozefowicz, Zaremba and Sutskever 2015)."""

    gates = ("r", "z", "n")
    states = ("h",)

    def step(self, x, h):
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + tanh(h).z)
        n = tanh(x.n + (r * h).n)
        return z * n + (1 - z) * h
