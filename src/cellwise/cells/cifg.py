from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class CIFG(Cell):
    """LSTM with coupled input and forget gate: what is forgotten is what is written (Greff et al. 2017).

    The paper's variant also has peepholes.
    """

    gates = ("f", "g", "o")
    states = ("h", "c")

    def step(self, x, h, c):
        f = sigmoid(x.f + h.f)
        g = tanh(x.g + h.g)
        o = sigmoid(x.o + h.o)
        c = f * c + (1 - f) * g
        return o * tanh(c), c
