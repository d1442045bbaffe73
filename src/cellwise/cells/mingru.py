from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid


class MinGRU(Cell):
    """Minimal gated recurrent unit, whose gates see the input alone (Feng et al. 2024, "Were RNNs all we needed?")."""

    gates = ("z", "n")
    states = ("h",)

    def step(self, x, h):
        z = sigmoid(x.z)
        return (1 - z) * h + z * x.n
