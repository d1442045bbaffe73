from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh


class BRC(Cell):
    """Bistable recurrent cell, whose units each see only themselves (Vecoven, Ernst and Drion 2021)."""

    gates = ("a", "c", "n")
    states = ("h",)
    w_a = Vector()
    w_c = Vector()

    def step(self, x, h):
        a = 1 + tanh(x.a + self.w_a * h)
        c = sigmoid(x.c + self.w_c * h)
        return c * h + (1 - c) * tanh(x.n + a * h)
