from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import linear, sigmoid


class SRU(Cell):
    """Simple recurrent unit, whose gates see their own unit alone, with a highway past it (Lei et al. 2018).

    The paper passes the input itself on where sizes allow it; here it is always projected.
    """

    gates = ("n", "f", "r", "p")
    states = ("c",)
    output = "h"
    v_f = Vector()
    v_r = Vector()

    def step(self, x, c):
        f = sigmoid(x.f + self.v_f * c)
        r = sigmoid(x.r + self.v_r * c)
        c = f * c + (1 - f) * linear(x.n)
        return r * c + (1 - r) * linear(x.p), c
