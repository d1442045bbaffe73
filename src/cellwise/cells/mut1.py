from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class MUT1(Cell):
    """The first of three cells found by search (Jozefowicz, Zaremba and Sutskever 2015).

    The paper adds tanh of the input itself to the candidate; here it is projected, for any input size.
    """

    gates = ("r", "z", "n")
    states = ("h",)

    def step(self, x, h):
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z)
        n = tanh((r * h).n + tanh(linear(x.n)))
        return z * n + (1 - z) * h
