from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid


class TRNN(Cell):
    """Strongly typed RNN, whose state is an average of inputs (Balduzzi and Ghifary 2016)."""

    gates = ("f", "n")
    states = ("h",)

    def step(self, x, h):
        f = sigmoid(x.f)
        return f * h + (1 - f) * linear(x.n)
