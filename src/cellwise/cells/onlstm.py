from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh
from cellwise.graph.gates import cumsum
from cellwise.graph.parts import softmax


class ONLSTM(Cell):
    """LSTM with ordered neurons: two master gates rise and fall from unit to unit (Shen et al. 2019).

    Each unit has its own place in them; in the paper units share one in chunks.
    """

    gates = ("i", "f", "n", "o", "forget", "enter")
    states = ("h", "c")

    def step(self, x, h, c):
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        n = tanh(x.n + h.n)
        o = sigmoid(x.o + h.o)
        forget = cumsum(softmax(x.forget + h.forget))
        enter = 1 - cumsum(softmax(x.enter + h.enter))
        overlap = forget * enter
        c = overlap * (f * c + i * n) + (forget - overlap) * c + (enter - overlap) * n
        return o * tanh(c), c
