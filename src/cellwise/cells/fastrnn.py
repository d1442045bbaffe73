from cellwise.cells.base import Cell, Scalar
from cellwise.graph.functions import sigmoid, tanh


class FastRNN(Cell):
    """RNN with a weighted residual connection of two learned numbers (Kusupati et al. 2018)."""

    gates = ("n",)
    states = ("h",)
    alpha = Scalar(-3.0)
    beta = Scalar(3.0)

    def step(self, x, h):
        return sigmoid(self.alpha) * tanh(x.n + h.n) + sigmoid(self.beta) * h
