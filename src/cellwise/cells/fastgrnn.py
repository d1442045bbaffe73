from cellwise.cells.base import Cell, Scalar, Vector
from cellwise.graph.functions import linear, sigmoid, tanh


class FastGRNN(Cell):
    """Gated RNN whose gate has the weights of its candidate (Kusupati et al. 2018).

    Its matrices are of full rank here; the paper also factors them.
    """

    gates = ("n",)
    states = ("h",)
    b_z = Vector(1.0)
    b_n = Vector(1.0)
    zeta = Scalar(1.0)
    nu = Scalar(-4.0)

    def step(self, x, h):
        shared = linear(x.n) + linear(h.n)
        z = sigmoid(shared + self.b_z)
        n = tanh(shared + self.b_n)
        return (sigmoid(self.zeta) * (1 - z) + sigmoid(self.nu)) * n + z * h
