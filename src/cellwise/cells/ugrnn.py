from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class UGRNN(Cell):
    """Update gate RNN: a GRU without its reset gate (Collins, Sohl-Dickstein and Sussillo 2017)."""

    gates = ("g", "n")
    states = ("h",)

    def step(self, x, h):
        g = sigmoid(x.g + h.g)
        return g * h + (1 - g) * tanh(x.n + h.n)
