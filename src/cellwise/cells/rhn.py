from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class RHN(Cell):
    """Recurrent highway network, of three steps of highway within a step of time (Zilly et al. 2017).

    With the carry gate 1 - t, as in the paper's experiments. A depth of three is in its gates.
    """

    gates = ("h1", "t1", "h2", "t2", "h3", "t3")
    states = ("h",)

    def step(self, x, h):
        t = sigmoid(x.t1 + h.t1)
        h = t * tanh(x.h1 + h.h1) + (1 - t) * h
        t = sigmoid(h.t2)
        h = t * tanh(h.h2) + (1 - t) * h
        t = sigmoid(h.t3)
        return t * tanh(h.h3) + (1 - t) * h
