from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh
from cellwise.graph.randomness import dropout


class VariationalLSTM(Cell):
    """LSTM whose gates see the state through one mask for all steps of a sequence (Gal and Ghahramani 2016).

    In evaluation it is an LSTM. The paper's mask of the input is dropout before the layer.
    """

    name = "variational-lstm"
    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    p: float = 0.25

    def step(self, x, h, c):
        seen = dropout(h, self.p, per_sequence=True)
        i = sigmoid(x.i + seen.i)
        f = sigmoid(x.f + seen.f)
        g = tanh(x.g + seen.g)
        o = sigmoid(x.o + seen.o)
        c = f * c + i * g
        return o * tanh(c), c
