from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class GRUODE(Cell):
    """GRU as a differential equation, one Euler step of it (GRU-ODE-Bayes, De Brouwer et al. 2019).

    dh/dt = (1 - z) (n - h), over the time `dt` since the last step, 1 where a call gives none: then it is a GRU. The
    paper takes several small steps between observations; its update at an observation is a layer of its own.
    """

    name = "gru-ode"
    gates = ("r", "z", "n")
    states = ("h",)
    inputs = {"dt": 1.0}  # noqa: RUF012  (a table, as gates are)

    def step(self, x, h, dt):
        r = sigmoid(x.r + h.r)
        z = sigmoid(x.z + h.z)
        n = tanh(x.n + (r * h).n)
        return h + dt * (1 - z) * (n - h)
