from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh


class UnICORNN(Cell):
    """Undamped independent controlled oscillators, each with a time step of its own (Rusch and Mishra 2021).

    The state v is the velocity of h.
    """

    gates = ("n",)
    states = ("h", "v")
    w = Vector((0.0, 1.0))
    k = Vector((-0.1, 0.1))
    dt: float = 0.1
    alpha: float = 0.0

    def step(self, x, h, v):
        dt = self.dt * sigmoid(self.k)
        v = v - dt * (tanh(x.n + self.w * h) + self.alpha * h)
        return h + dt * v, v
