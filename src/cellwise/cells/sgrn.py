from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class SGRN(Cell):
    """Simple gated recurrent network: the product with the input opens its own gate (Zu and Wei 2021).

    For the detection of power quality disturbances; IET Generation, Transmission and Distribution, doi
    10.1049/gtd2.12056.
    """

    name = "sgrn"
    gates = ("n",)
    states = ("h",)

    def step(self, x, h):
        n = x.n
        f = sigmoid(n + h.n)
        return tanh((1 - f) * n + f * h)
