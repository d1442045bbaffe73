from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import linear, sigmoid


class SRU(Cell):
    """Simple recurrent unit, whose gates see their own unit alone, with a highway past it (Lei et al. 2018).

    What passes is the input, projected to any size; with `raw` the input itself, of size H, as in the paper.
    """

    gates = ("n", "f", "r", "p")
    states = ("c",)
    output = "h"
    v_f = Vector()
    v_r = Vector()
    raw: bool = False

    def step(self, x, c):
        f = sigmoid(x.f + self.v_f * c)
        r = sigmoid(x.r + self.v_r * c)
        c = f * c + (1 - f) * linear(x.n)
        return r * c + (1 - r) * (x if self.raw else linear(x.p)), c
