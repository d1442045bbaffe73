from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class GILR(Cell):
    """Gated impulse linear recurrence (Martin and Cundy 2018)."""

    gates = ("g", "i")
    states = ("h",)

    def step(self, x, h):
        g = sigmoid(x.g)
        return g * h + (1 - g) * tanh(x.i)
