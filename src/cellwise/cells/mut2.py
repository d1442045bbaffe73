from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class MUT2(Cell):
    """The second of three cells found by search (Jozefowicz, Zaremba and Sutskever 2015).

    In the gate r stands the input, projected to any size; with `raw` the input itself, as in the paper.
    """

    gates = ("r", "z", "n")
    states = ("h",)
    raw: bool = False

    def step(self, x, h):
        r = sigmoid((x if self.raw else linear(x.r)) + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + (r * h).n)
        return z * n + (1 - z) * h
