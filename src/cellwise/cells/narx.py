from cellwise.cells.base import Cell
from cellwise.errors import CellOptionError
from cellwise.graph.functions import linear, tanh

_MOST = 128  # delays: each is a state that every step hands on


class NARX(Cell):
    """Recurrent network that sees its outputs of several steps ago, not of the last alone (NARX, Lin et al. 1996).

    One layer of tanh units, all of whose outputs are fed back; of x the present step alone. `delays` is how many steps
    back it sees, 1 to 128; the state h2 is the output of two steps ago, and n2 the gate that it is given to. With 1 it
    is the plain network.
    """

    name = "narx"
    delays: int = 3

    @property
    def states(self):  # type: ignore[override]  # what an option decides
        return ("h", *(f"h{delay}" for delay in self._further()))

    @property
    def gates(self):  # type: ignore[override]  # what an option decides
        return ("n", *(f"n{delay}" for delay in self._further()))

    def _further(self):
        if not 1 <= self.delays <= _MOST:
            raise CellOptionError(cell="NARX", problem=f"delays={self.delays} (it takes 1 to {_MOST})")
        return range(2, self.delays + 1)

    def step(self, x, h, *older):
        total = x.n + h.n
        for delay, state in zip(self._further(), older, strict=True):
            total = total + linear(getattr(state, f"n{delay}"))
        return tanh(total), *(h, *older)[:-1]
