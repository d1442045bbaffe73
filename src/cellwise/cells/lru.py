from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import cos, exp, linear, sin, sqrt


class LRU(Cell):
    """Linear recurrent unit: a complex number turned and damped in each unit (Orvieto et al. 2023).

    The state is h + i s. The paper's blocks add normalization and a gated layer around it.
    """

    gates = ("a", "b", "c", "d", "y")
    states = ("h", "s")
    output = "y"
    nu = Vector((-4.0, 0.0))
    theta = Vector((0.0, 3.1))

    def step(self, x, h, s):
        size = exp(-exp(self.nu))
        scale = sqrt(1 - size * size)
        turn, lean = size * cos(self.theta), size * sin(self.theta)
        h, s = turn * h - lean * s + scale * linear(x.a), lean * h + turn * s + scale * linear(x.b)
        return linear(h.c) - linear(s.d) + linear(x.y), h, s
