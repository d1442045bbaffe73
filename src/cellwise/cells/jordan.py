from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid


class Jordan(Cell):
    """Jordan network, which carries its output through time instead of its hidden units (Jordan 1986)."""

    gates = ("n", "o")
    states = ("y",)

    def step(self, x, y):
        h = sigmoid(x.n + y.n)
        return sigmoid(h.o)
