from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class TGRU(Cell):
    """Strongly typed GRU, whose gates see two inputs and no state (Balduzzi and Ghifary 2016).

    The states p, q, r hold the products of the input before.
    """

    gates = ("z", "f", "o", "p", "q", "r")
    states = ("h", "p", "q", "r")

    def step(self, x, h, p, q, r):
        z = x.z + p
        f = sigmoid(x.f + q)
        o = tanh(x.o + r)
        return f * h + z * o, linear(x.p), linear(x.q), linear(x.r)
