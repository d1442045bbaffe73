from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid


class LTC(Cell):
    """Liquid time-constant network, by one fused step of its solver (Hasani et al. 2021).

    The paper takes several steps of the solver in one of time, and a network of synapses in the place of f.
    """

    gates = ("f",)
    states = ("h",)
    tau = Vector(1.0)
    a = Vector((-1.0, 1.0))
    dt: float = 1.0

    def step(self, x, h):
        f = sigmoid(x.f + h.f)
        return (h + self.dt * f * self.a) / (1 + self.dt * (1 / self.tau + f))
