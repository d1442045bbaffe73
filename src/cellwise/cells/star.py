from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class STAR(Cell):
    """Stackable recurrent cell, whose gradients neither vanish nor explode across layers (Turkoglu et al. 2021)."""

    gates = ("k", "z")
    states = ("h",)

    def step(self, x, h):
        k = sigmoid(x.k + h.k)
        z = tanh(x.z)
        return tanh((1 - k) * h + k * z)
