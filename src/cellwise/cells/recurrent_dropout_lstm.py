from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh
from cellwise.graph.randomness import dropout


class RecurrentDropoutLSTM(Cell):
    """LSTM with dropout of what is written to the memory, which itself is left alone (Semeniuta et al. 2016).

    With `per_sequence` one mask serves all steps of a sequence; in evaluation it is an LSTM.
    """

    name = "recurrent-dropout-lstm"
    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    p: float = 0.25
    per_sequence: bool = False

    def step(self, x, h, c):
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        g = dropout(tanh(x.g + h.g), self.p, self.per_sequence)
        o = sigmoid(x.o + h.o)
        c = f * c + i * g
        return o * tanh(c), c
