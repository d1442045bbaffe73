from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import linear, sigmoid, tanh


class MultiplicativeIntegrationGRU(Cell):
    """GRU whose gates multiply the input's product with the state's, beside their sum (Wu et al. 2016)."""

    name = "mi-gru"
    gates = ("r", "z", "n")
    states = ("h",)
    a_r = Vector(1.0)
    x_r = Vector(0.5)
    h_r = Vector(0.5)
    b_r = Vector(0.0)
    a_z = Vector(1.0)
    x_z = Vector(0.5)
    h_z = Vector(0.5)
    b_z = Vector(0.0)
    a_n = Vector(1.0)
    x_n = Vector(0.5)
    h_n = Vector(0.5)
    b_n = Vector(0.0)

    def step(self, x, h):
        r = sigmoid(_joined(linear(x.r), linear(h.r), self.a_r, self.x_r, self.h_r, self.b_r))
        z = sigmoid(_joined(linear(x.z), linear(h.z), self.a_z, self.x_z, self.h_z, self.b_z))
        n = tanh(_joined(linear(x.n), linear((r * h).n), self.a_n, self.x_n, self.h_n, self.b_n))
        return (1 - z) * n + z * h


def _joined(u, v, both, of_u, of_v, bias):
    return both * u * v + of_u * u + of_v * v + bias
