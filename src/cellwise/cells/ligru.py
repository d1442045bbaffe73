from cellwise.cells.base import Cell
from cellwise.graph.functions import relu, sigmoid


class LiGRU(Cell):
    """Light GRU: no reset gate, and relu (Ravanelli et al. 2018).

    The paper normalizes x.z and x.n over the batch, which is left out here.
    """

    gates = ("z", "n")
    states = ("h",)

    def step(self, x, h):
        z = sigmoid(x.z + h.z)
        return z * h + (1 - z) * relu(x.n + h.n)
