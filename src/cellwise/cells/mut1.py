from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class MUT1(Cell):
    """The first of three cells found by search (Jozefowicz, Zaremba and Sutskever 2015).

    The candidate has tanh of the input, projected to any size; with `raw` of the input itself, as in the paper.
    """

    gates = ("r", "z", "n")
    states = ("h",)
    raw: bool = False

    def step(self, x, h):
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z)
        n = tanh((r * h).n + tanh(x if self.raw else linear(x.n)))
        return z * n + (1 - z) * h
