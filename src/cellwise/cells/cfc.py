from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class CfC(Cell):
    """Closed-form continuous-time network (Hasani et al. 2022), with equal times between steps.

    Without the layers that input and state share before the three heads.
    """

    gates = ("f", "g", "n")
    states = ("h",)
    dt: float = 1.0

    def step(self, x, h):
        f = sigmoid(-self.dt * (x.f + h.f))
        return f * tanh(x.g + h.g) + (1 - f) * tanh(x.n + h.n)
