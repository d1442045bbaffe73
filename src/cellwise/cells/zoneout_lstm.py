from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh
from cellwise.graph.randomness import zoneout


class ZoneoutLSTM(Cell):
    """LSTM whose units keep their old values at random in training (Krueger et al. 2017, "Zoneout").

    The options are the probabilities of the paper's character models: with which a unit of c, and of h, stays.
    """

    name = "zoneout-lstm"
    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    memory_zoneout: float = 0.5
    output_zoneout: float = 0.05

    def step(self, x, h, c):
        i = sigmoid(x.i + h.i)
        f = sigmoid(x.f + h.f)
        g = tanh(x.g + h.g)
        o = sigmoid(x.o + h.o)
        memory = f * c + i * g
        return zoneout(o * tanh(memory), h, self.output_zoneout), zoneout(memory, c, self.memory_zoneout)
