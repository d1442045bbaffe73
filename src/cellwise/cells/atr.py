from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid


class ATR(Cell):
    """Addition-subtraction twin-gated network, whose input and forget gate share one product (Zhang et al. 2018)."""

    gates = ("p",)
    states = ("h",)

    def step(self, x, h):
        p, q = x.p, h.p
        i = sigmoid(p + q)
        f = sigmoid(p - q)
        return i * p + f * h
