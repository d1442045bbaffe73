from cellwise.cells.base import Cell
from cellwise.graph.functions import tanh


class LeakyRNN(Cell):
    """Leaky integrator units, as echo state networks have them (Jaeger et al. 2007); here all weights are learned."""

    name = "leaky-rnn"
    gates = ("n",)
    states = ("h",)
    rate: float = 0.1

    def step(self, x, h):
        return (1 - self.rate) * h + self.rate * tanh(x.n + h.n)
