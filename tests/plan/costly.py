"""A cell with what the shipped ones lack, and the cost of any, for the tests of costs."""

from __future__ import annotations

from typing import Any

from cellwise import Cell, Scalar, Vector, cells, exp, sigmoid, stop_gradient, tanh
from cellwise.plan.cost import Cost, cost_of


class Parts(Cell):
    """What the shipped cells lack: two states, another output, work on parameters alone, a product of a product."""

    gates = ("a", "q", "m")
    states = ("h", "s")
    output = "y"
    u = Vector((0.1, 0.9))
    k = Scalar(0.3)

    def step(self, x, h, s):
        rate = exp(self.u) * exp(-self.k)
        a = sigmoid(x.a + h.a + s.a)
        new = a * h + rate * tanh((a * s).m + x.q)
        return new * s, tanh(new), h - self.k * stop_gradient(a)


def cost(cell: Any, layers: int = 1, bias: bool = True, recompute: bool = False) -> Cost:
    return cost_of(cells.get(cell).graph, layers, bias, recompute)


EVERY = [*cells.FAMILIAR, Parts]
