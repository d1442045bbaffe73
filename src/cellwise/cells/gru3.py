from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh


class GRU3(Cell):
    """GRU whose gates are learned constants (Dey and Salem 2017, variant 3)."""

    gates = ("n",)
    states = ("h",)
    b_r = Vector()
    b_z = Vector()

    def step(self, x, h):
        r = sigmoid(self.b_r)
        z = sigmoid(self.b_z)
        n = tanh(x.n + (r * h).n)
        return (1 - z) * h + z * n
