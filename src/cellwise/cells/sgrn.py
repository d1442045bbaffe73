from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class SGRN(Cell):
    """Simple gated network: the product with the input is gated, and opens the gate
    (IET Generation, Transmission and Distribution 2021, doi 10.1049/gtd2.12056).
    """

    name = "sgrn"
    gates = ("n",)
    states = ("h",)

    def step(self, x, h):
        n = x.n
        f = sigmoid(n + h.n)
        return tanh((1 - f) * n + f * h)
