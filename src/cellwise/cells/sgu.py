from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class SGU(Cell):
    """Simple gated unit, which multiplies the state by what it learns of input times state (Gao and Glowacka 2016)."""

    gates = ("g", "z")
    states = ("h",)

    def step(self, x, h):
        g = tanh(linear((x.g * h).g))
        z = sigmoid(x.z + h.z)
        return (1 - z) * h + z * tanh(g * h)
