from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class TauGRU(Cell):
    """GRU that also sees its state of three steps before (Erichson, Lim and Mahoney 2023).

    The delay is in its states.
    """

    name = "tau-gru"
    gates = ("u", "z", "g", "a")
    states = ("h", "second", "third")

    def step(self, x, h, second, third):
        u = tanh(x.u + h.u)
        z = tanh(x.z + third.z)
        g = sigmoid(x.g + h.g)
        a = sigmoid(x.a + h.a)
        return (1 - g) * h + g * (u + a * z), h, second
