from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, silu


class HGRN(Cell):
    """Hierarchically gated recurrent unit: a forget gate with a learned lower bound (Qin, Yang and Zhong 2023).

    With real numbers; the paper's state is complex and turns, its lower bounds grow from layer to layer, and its blocks
    normalize the output.
    """

    gates = ("f", "i", "g")
    states = ("h",)
    output = "y"
    bound = Vector(0.0)

    def step(self, x, h):
        low = sigmoid(self.bound)
        f = low + (1 - low) * sigmoid(x.f)
        h = f * h + (1 - f) * silu(x.i)
        return h * sigmoid(x.g), h
