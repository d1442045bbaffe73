from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, tanh


class MultiplicativeRNN(Cell):
    """RNN whose recurrent matrix depends on the input, in factored form (Sutskever, Martens and Hinton 2011)."""

    name = "multiplicative-rnn"
    gates = ("m", "n")
    states = ("h",)

    def step(self, x, h):
        m = linear(x.m) * linear(h.m)
        return tanh(x.n + linear(m.n))
