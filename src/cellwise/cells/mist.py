from functools import reduce
from operator import add

from cellwise.cells.base import Cell
from cellwise.errors import CellOptionError
from cellwise.graph.functions import exp, maximum, sigmoid, stop_gradient, tanh
from cellwise.graph.functions import sum as sum_of_units

_MOST = 8  # delays: the last is then 128 steps, and each step is a state


class MIST(Cell):
    """Mixed history network: a mean of states 1, 2, 4, ... steps ago, weighed at each step (DiPietro et al. 2017).

    `delays` is how many there are, 1 to 8; the paper has 8, which is 128 states. The state h2 is the output of two
    steps ago; the gate a2, of one unit, says how much of it is taken.
    """

    name = "mist"
    delays: int = 4

    @property
    def states(self):  # type: ignore[override]  # what an option decides
        return ("h", *(f"h{ago}" for ago in range(2, self._ago()[-1] + 1)))

    @property
    def gates(self):  # type: ignore[override]  # what an option decides
        return ("r", "n", *(f"a{ago}" for ago in self._ago()))

    @property
    def widths(self):  # type: ignore[override]  # what an option decides
        return {f"a{ago}": 1 for ago in self._ago()}

    def _ago(self):
        if not 1 <= self.delays <= _MOST:
            raise CellOptionError(cell="MIST", problem=f"delays={self.delays} (it takes 1 to {_MOST})")
        return [2**power for power in range(self.delays)]

    def step(self, x, *states):
        h = states[0]
        r = sigmoid(x.r + h.r)
        scores = [sum_of_units(getattr(x, f"a{ago}") + getattr(h, f"a{ago}")) for ago in self._ago()]
        largest = stop_gradient(reduce(maximum, scores))  # taken off first, as it cancels
        shares = [exp(score - largest) for score in scores]
        parts = [share * states[ago - 1] for share, ago in zip(shares, self._ago(), strict=True)]
        mixed = reduce(add, parts) / reduce(add, shares)
        return tanh(x.n + (r * mixed).n), *states[:-1]
