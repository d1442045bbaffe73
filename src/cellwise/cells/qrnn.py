from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class QRNN(Cell):
    """Quasi-recurrent network: convolutions of width two over the input, and fo-pooling (Bradbury et al. 2017).

    The states p, q, r hold the products of the input before.
    """

    gates = ("z", "f", "o", "p", "q", "r")
    states = ("c", "p", "q", "r")
    output = "h"

    def step(self, x, c, p, q, r):
        z = tanh(x.z + p)
        f = sigmoid(x.f + q)
        o = sigmoid(x.o + r)
        c = f * c + (1 - f) * z
        return o * c, c, linear(x.p), linear(x.q), linear(x.r)
