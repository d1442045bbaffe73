from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import exp, linear, sigmoid, softplus, sqrt


class RGLRU(Cell):
    """Real-gated linear recurrent unit, the recurrence of Griffin and Hawk (De et al. 2024).

    Its input is projected here, in the place of the linear layer and the convolution before it.
    """

    name = "rg-lru"
    gates = ("a", "i", "n")
    states = ("h",)
    decay = Vector((-9.0, -4.3))
    sharpness: float = 8.0

    def step(self, x, h):
        log_a = -self.sharpness * softplus(self.decay) * sigmoid(x.a)
        i = sigmoid(x.i)
        return exp(log_a) * h + sqrt(1 - exp(2 * log_a)) * (i * linear(x.n))
