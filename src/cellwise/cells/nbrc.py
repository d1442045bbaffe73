from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class NBRC(Cell):
    """Recurrently neuromodulated bistable cell, whose gates see all units (Vecoven, Ernst and Drion 2021)."""

    gates = ("a", "c", "n")
    states = ("h",)

    def step(self, x, h):
        a = 1 + tanh(x.a + h.a)
        c = sigmoid(x.c + h.c)
        return c * h + (1 - c) * tanh(x.n + a * h)
