from cellwise.cells.base import Cell
from cellwise.graph.functions import relu, sigmoid
from cellwise.graph.gates import ready


class LiGRU(Cell):
    """Light GRU: no reset gate, and relu (Ravanelli et al. 2018).

    The paper normalizes x.z and x.n over the batch. With `arrives_ready` the input is what they are then, (T, B, 2H),
    made by what stands before the layer: a torch.nn.Linear without a bias and a torch.nn.BatchNorm1d.
    """

    gates = ("z", "n")
    states = ("h",)
    arrives_ready: bool = False

    def step(self, x, h):
        of_z, of_n = (ready(x.z), ready(x.n)) if self.arrives_ready else (x.z, x.n)
        z = sigmoid(of_z + h.z)
        return z * h + (1 - z) * relu(of_n + h.n)
