from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class TLSTM(Cell):
    """Strongly typed LSTM, whose gates see two inputs and no state (Balduzzi and Ghifary 2016).

    The states p, q, r hold the products of the input before.
    """

    gates = ("z", "f", "o", "p", "q", "r")
    states = ("c", "p", "q", "r")
    output = "h"

    def step(self, x, c, p, q, r):
        z = x.z + p
        f = sigmoid(x.f + q)
        o = tanh(x.o + r)
        c = f * c + (1 - f) * z
        return c * o, c, linear(x.p), linear(x.q), linear(x.r)
