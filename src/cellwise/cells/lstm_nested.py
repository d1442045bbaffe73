from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class NestedLSTM(Cell):
    """LSTM whose memory cell is an LSTM itself (Moniz and Krueger 2017).

    The inner one takes i * g as its input and f * c as its state.
    """

    name = "lstm-nested"
    gates = ("i", "f", "g", "o", "ai", "af", "ag", "ao", "bi", "bf", "bg", "bo")
    states = ("h", "c", "n")

    def step(self, x, h, c, n):
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        g = tanh(x.g + h.g)
        o = sigmoid(x.o + h.o)
        v, u = i * g, f * c
        n = sigmoid(v.af + u.bf) * n + sigmoid(v.ai + u.bi) * tanh(v.ag + u.bg)
        c = sigmoid(v.ao + u.bo) * tanh(n)
        return o * tanh(c), c, n
