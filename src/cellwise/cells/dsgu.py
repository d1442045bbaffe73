from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class DSGU(Cell):
    """Deep simple gated unit: a simple gated unit with one more product (Gao and Glowacka 2016)."""

    gates = ("g", "o", "z")
    states = ("h",)

    def step(self, x, h):
        g = tanh(linear((x.g * h).g))
        z = sigmoid(x.z + h.z)
        return (1 - z) * h + z * tanh(linear((g * h).o))
