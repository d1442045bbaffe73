from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class JANET(Cell):
    """Just another network: an LSTM of its forget gate alone (van der Westhuizen and Lasenby 2018)."""

    gates = ("s", "n")
    states = ("h",)
    beta: float = 1.0

    def step(self, x, h):
        s = x.s + h.s
        return sigmoid(s) * h + (1 - sigmoid(s - self.beta)) * tanh(x.n + h.n)
