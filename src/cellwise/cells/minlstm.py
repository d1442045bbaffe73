from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid


class MinLSTM(Cell):
    """Minimal LSTM, whose gates see the input alone (Feng et al. 2024, "Were RNNs all we needed?")."""

    gates = ("f", "i", "n")
    states = ("h",)

    def step(self, x, h):
        f = sigmoid(x.f)
        i = sigmoid(x.i)
        return (f * h + i * x.n) / (f + i)
