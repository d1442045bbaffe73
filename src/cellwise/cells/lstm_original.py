from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class OriginalLSTM(Cell):
    """LSTM as it first was, without a forget gate (Hochreiter and Schmidhuber 1997).

    The paper squashes to (-2, 2) and (-1, 1) by scaled logistic functions; here both are tanh.
    """

    name = "lstm-original"
    gates = ("i", "g", "o")
    states = ("h", "c")

    def step(self, x, h, c):
        i = sigmoid(x.i + h.i)
        g = tanh(x.g + h.g)
        o = sigmoid(x.o + h.o)
        c = c + i * g
        return o * tanh(c), c
