from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid


class SCRN(Cell):
    """Structurally constrained network: a slow context beside the hidden state (Mikolov et al. 2015).

    The output is what the paper gives to its softmax. `context` is the number of slow units, 40 beside 100 of h in the
    paper; as many as h has if None.
    """

    gates = ("s", "n", "m", "o", "p")
    states = ("h", "s")
    output = "y"
    widths = {"s": "context"}  # noqa: RUF012  (a table, as gates are)
    alpha: float = 0.95
    context: int | str | None = None

    def step(self, x, h, s):
        s = (1 - self.alpha) * linear(x.s) + self.alpha * s
        h = sigmoid(x.n + h.n + linear(s.m))
        return h.o + linear(s.p), h, s
