from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class LightRU(Cell):
    """Light recurrent unit, whose candidate sees the input alone (Ye et al. 2024)."""

    gates = ("f", "n")
    states = ("h",)

    def step(self, x, h):
        f = sigmoid(x.f + h.f)
        return (1 - f) * h + f * tanh(x.n)
