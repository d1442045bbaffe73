from typing import Literal

from cellwise.cells.base import Cell
from cellwise.graph.functions import relu, tanh


class RNN(Cell):
    """Simple recurrent network (Elman 1990; the form of torch.nn.RNN)."""

    gates = ("n",)
    nonlinearity: Literal["tanh", "relu"] = "tanh"

    def step(self, x, h):
        activation = {"tanh": tanh, "relu": relu}[self.nonlinearity]
        return activation(x.n + h.n)
