from cellwise.cells.base import Cell
from cellwise.graph.functions import linear, sigmoid, tanh
from cellwise.graph.gates import skew


class AntisymmetricRNN(Cell):
    """Network whose recurrent weight is W - W^T, less a diagonal: a state turns and hardly fades (Chang et al. 2019).

    A step of Euler's method on a differential equation that is stable. With the gate of the paper, whose weight is the
    same one; without it where `gated` is False.
    """

    name = "antisymmetric-rnn"
    gates = ("z", "n")
    states = ("h",)
    step_size: float = 0.01
    diffusion: float = 0.01
    gated: bool = True

    def step(self, x, h):
        turned = linear(skew(h.n, self.diffusion))
        n = tanh(x.n + turned)
        return h + self.step_size * (sigmoid(x.z + turned) * n if self.gated else n)
