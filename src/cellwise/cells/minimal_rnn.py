from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh


class MinimalRNN(Cell):
    """RNN that carries the embedded input and nothing else into its state (Chen 2017)."""

    name = "minimal-rnn"
    gates = ("n", "u", "m")
    states = ("h",)

    def step(self, x, h):
        z = tanh(x.n)
        u = sigmoid(h.u + linear(z.m))
        return u * h + (1 - u) * z
