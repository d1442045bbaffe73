from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import relu


class IndRNN(Cell):
    """Independently recurrent network, in which each unit sees only itself (Li et al. 2018)."""

    gates = ("n",)
    states = ("h",)
    u = Vector()

    def step(self, x, h):
        return relu(x.n + self.u * h)
