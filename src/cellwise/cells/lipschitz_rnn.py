from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, tanh
from cellwise.graph.gates import symmetric_skew


class LipschitzRNN(Cell):
    """Network whose weights lean between symmetric and skew ones, and which stays stable (Erichson et al. 2021).

    A step of Euler's method on dh/dt = A h + tanh(W h + U x + b). `lean` is how skew A and W are, from 0.5 to 1, and
    `decay` is taken off their diagonals.
    """

    name = "lipschitz-rnn"
    gates = ("a", "n")
    states = ("h",)
    step_size: float = 0.01
    lean: float = 0.75
    decay: float = 0.001

    def step(self, x, h):
        drift = linear(symmetric_skew(h.a, self.lean)) - self.decay * h
        return h + self.step_size * (
            drift + tanh(x.n + linear(symmetric_skew(h.n, self.lean)) - self.decay * h)
        )
