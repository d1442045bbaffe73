from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, relu, sigmoid, tanh


class IntersectionRNN(Cell):
    """Intersection network: gates choose between old and new both in time and in depth (Collins et al. 2017).

    What passes in depth is the input, projected to any size; with `raw` the input itself, as in the paper.
    """

    name = "intersection-rnn"
    gates = ("y", "v", "g", "n", "p")
    states = ("h",)
    output = "y"
    raw: bool = False

    def step(self, x, h):
        v = sigmoid(x.v + h.v)
        g = sigmoid(x.g + h.g)
        y = v * (x if self.raw else linear(x.p)) + (1 - v) * relu(x.y + h.y)
        return y, g * h + (1 - g) * tanh(x.n + h.n)
