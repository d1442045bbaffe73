from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, relu, sigmoid, tanh


class IntersectionRNN(Cell):
    """Intersection network: gates choose between old and new both in time and in depth (Collins et al. 2017).

    The paper passes the input itself on in depth; here it is projected, for any input size.
    """

    name = "intersection-rnn"
    gates = ("y", "v", "g", "n", "p")
    states = ("h",)
    output = "y"

    def step(self, x, h):
        v = sigmoid(x.v + h.v)
        g = sigmoid(x.g + h.g)
        y = v * linear(x.p) + (1 - v) * relu(x.y + h.y)
        return y, g * h + (1 - g) * tanh(x.n + h.n)
