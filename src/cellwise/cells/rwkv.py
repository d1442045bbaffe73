from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import exp, linear, maximum, sigmoid


class RWKV(Cell):
    """An average of inputs with exponential weights, the time mixing of RWKV-4 (Peng et al. 2023).

    The state m keeps exponents small and cancels in a / b. Without the mixing of neighbouring inputs before it, and
    the product after it.
    """

    gates = ("k", "v", "r")
    states = ("a", "b", "m")
    output = "y"
    decay = Vector((-5.0, 0.0))
    first = Vector(0.0)

    def step(self, x, a, b, m):
        k, v = linear(x.k), linear(x.v)
        now = self.first + k
        top = maximum(m, now)
        mean = (exp(m - top) * a + exp(now - top) * v) / (exp(m - top) * b + exp(now - top))
        old = m - exp(self.decay)
        m = maximum(old, k)
        a = exp(old - m) * a + exp(k - m) * v
        b = exp(old - m) * b + exp(k - m)
        return sigmoid(linear(x.r)) * mean, a, b, m
