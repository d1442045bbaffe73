from cellwise.cells.base import Cell
from cellwise.graph.functions import relu, sigmoid, tanh


class NAS(Cell):
    """The cell that a network found by reinforcement learning (Zoph and Le 2017; the form of TensorFlow's NASCell)."""

    gates = ("a", "b", "d", "e", "f", "g", "i", "j")
    states = ("h", "c")

    def step(self, x, h, c):
        left = tanh(sigmoid(x.a + h.a) * relu(x.b + h.b))
        middle = tanh(sigmoid(x.d + h.d) + relu(x.e * h.e))
        right = tanh(tanh(x.f + h.f) * sigmoid(x.g + h.g))
        last = sigmoid(tanh(x.i + h.i) + sigmoid(x.j + h.j))
        c = tanh(left + c) * middle
        return tanh(c * tanh(right + last)), c
