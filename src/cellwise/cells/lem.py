from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class LEM(Cell):
    """Long expressive memory: two states with time steps that are learned (Rusch et al. 2022)."""

    gates = ("a", "b", "z", "n")
    states = ("h", "z")
    dt: float = 1.0

    def step(self, x, h, z):
        a = self.dt * sigmoid(x.a + h.a)
        b = self.dt * sigmoid(x.b + h.b)
        z = (1 - a) * z + a * tanh(x.z + h.z)
        return (1 - b) * h + b * tanh(x.n + z.n), z
