from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid


class SCRN(Cell):
    """Structurally constrained network: a slow context beside the hidden state (Mikolov et al. 2015).

    The context has the size of the state here. The output is what the paper gives to its softmax.
    """

    gates = ("s", "n", "m", "o", "p")
    states = ("h", "s")
    output = "y"
    alpha: float = 0.95

    def step(self, x, h, s):
        s = (1 - self.alpha) * linear(x.s) + self.alpha * s
        h = sigmoid(x.n + h.n + linear(s.m))
        return h.o + linear(s.p), h, s
