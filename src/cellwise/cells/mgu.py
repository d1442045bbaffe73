from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class MGU(Cell):
    """Minimal gated unit, one gate that forgets and resets (Zhou et al. 2016)."""

    gates = ("f", "n")
    states = ("h",)

    def step(self, x, h):
        f = sigmoid(x.f + h.f)
        n = tanh(x.n + (f * h).n)
        return (1 - f) * h + f * n
