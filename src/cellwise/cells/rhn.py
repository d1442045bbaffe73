from cellwise.cells.base import Cell
from cellwise.errors import CellOptionError
from cellwise.graph.functions import sigmoid, tanh

_MOST = 32  # levels: a step is unrolled, and a kernel compiled of all of it


class RHN(Cell):
    """Recurrent highway network, of several steps of highway within a step of time (Zilly et al. 2017).

    With the carry gate 1 - t, as in the paper's experiments. `depth` is how many steps of highway there are, 1 to 32;
    each has a gate h and a gate t of its own, and the first alone is given the input.
    """

    states = ("h",)
    depth: int = 3

    @property
    def gates(self):  # type: ignore[override]  # what an option decides
        if not 1 <= self.depth <= _MOST:
            raise CellOptionError(cell="RHN", problem=f"depth={self.depth} (it takes 1 to {_MOST})")
        return tuple(f"{kind}{level}" for level in range(1, self.depth + 1) for kind in "ht")

    def step(self, x, h):
        t = sigmoid(x.t1 + h.t1)
        h = t * tanh(x.h1 + h.h1) + (1 - t) * h
        for level in range(2, self.depth + 1):
            t = sigmoid(getattr(h, f"t{level}"))
            h = t * tanh(getattr(h, f"h{level}")) + (1 - t) * h
        return h
