from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import exp, relu, sigmoid, tanh


class GRUD(Cell):
    """GRU whose state decays with the time since the last step (GRU-D, Che et al. 2018).

    `dt`, at least 0, is that time, for a row or for each unit; where a call gives none it is 1. What the paper does to
    the input (missing values that decay towards their mean, a mask beside them) is a preparation of x.
    """

    name = "gru-d"
    gates = ("r", "z", "n")
    states = ("h",)
    inputs = {"dt": 1.0}  # noqa: RUF012  (a table, as gates are)
    w_d = Vector((0.0, 0.1))
    b_d = Vector(0.0)

    def step(self, x, h, dt):
        h = exp(-relu(self.w_d * dt + self.b_d)) * h
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + (r * h).n)
        return (1 - z) * h + z * n
