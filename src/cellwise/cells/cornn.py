from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, tanh


class CoRNN(Cell):
    """Coupled oscillatory network: units are driven and damped oscillators (Rusch and Mishra 2021).

    The state v is the velocity of h. `stiffness` and `damping` are gamma and epsilon in the paper.
    """

    gates = ("n", "v")
    states = ("h", "v")
    dt: float = 0.1
    stiffness: float = 1.0
    damping: float = 1.0

    def step(self, x, h, v):
        force = tanh(x.n + h.n + linear(v.v))
        v = v + self.dt * (force - self.stiffness * h - self.damping * v)
        return h + self.dt * v, v
