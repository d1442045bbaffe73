from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class GRU(Cell):
    """Gated recurrent unit, reset after the matrix product (Cho et al. 2014; the form of torch.nn.GRU)."""

    gates = ("r", "z", "n")
    states = ("h",)

    def step(self, x, h):
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + r * h.n)
        return (1 - z) * n + z * h
