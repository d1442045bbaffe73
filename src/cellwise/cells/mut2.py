from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class MUT2(Cell):
    """The second of three cells found by search (Jozefowicz, Zaremba and Sutskever 2015).

    The paper adds the input itself in the gate r; here it is projected, for any input size.
    """

    gates = ("r", "z", "n")
    states = ("h",)

    def step(self, x, h):
        r = sigmoid(linear(x.r) + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + (r * h).n)
        return z * n + (1 - z) * h
