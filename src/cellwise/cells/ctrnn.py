from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import linear, tanh


class CTRNN(Cell):
    """Continuous-time network with a time constant for each unit, by Euler's method (Funahashi and Nakamura 1993)."""

    gates = ("n",)
    states = ("h",)
    tau = Vector(1.0)
    dt: float = 0.1

    def step(self, x, h):
        return h + self.dt / self.tau * (x.n + linear(tanh(h).n) - h)
