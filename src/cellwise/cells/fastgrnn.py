from cellwise.cells.base import Cell, Scalar, Vector
from cellwise.graph.functions import linear, sigmoid, tanh
from cellwise.graph.gates import low_rank


class FastGRNN(Cell):
    """Gated RNN whose gate has the weights of its candidate (Kusupati et al. 2018).

    Its matrices are whole, or of the rank that `rank` says, products of two narrow ones.
    """

    gates = ("n",)
    states = ("h",)
    b_z = Vector(1.0)
    b_n = Vector(1.0)
    zeta = Scalar(1.0)
    nu = Scalar(-4.0)
    rank: int = 0

    def step(self, x, h):
        of_x, of_h = (low_rank(gate, self.rank) if self.rank else gate for gate in (x.n, h.n))
        shared = linear(of_x) + linear(of_h)
        z = sigmoid(shared + self.b_z)
        n = tanh(shared + self.b_n)
        return (sigmoid(self.zeta) * (1 - z) + sigmoid(self.nu)) * n + z * h
