from functools import lru_cache
from math import ceil, log2
from operator import add

from cellwise.cells.base import Cell
from cellwise.errors import CellOptionError
from cellwise.graph.functions import linear, tanh
from cellwise.graph.gates import fixed

_LONGEST_LIST = 32  # numpy is quicker from there on, but takes longer to load than all cells to be listed
_MOST = 128  # of the order: a product of order² numbers in each step, and as many in the equations


class LMU(Cell):
    """Legendre memory unit: what one number was in a window of the past, as polynomials (Voelker et al. 2019).

    The number u is of the input, the state and the memory before the step. The memory m holds the last `theta` steps of
    it, as `order` shifted Legendre polynomials; nothing of it is learned. Steps are discretized by a zero-order hold.
    """

    name = "lmu"
    gates = ("u", "v", "n", "k")
    states = ("h", "m")
    widths = {"m": "order"}  # noqa: RUF012  (a table, as gates are)
    order: int = 16
    theta: float = 100.0

    def __init__(self, **options):
        super().__init__(**options)
        if not 1 <= self.order <= _MOST:
            raise CellOptionError(cell="LMU", problem=f"order={self.order} (it takes 1 to {_MOST})")
        if not 1 <= self.theta < float("inf"):
            raise CellOptionError(
                cell="LMU", problem=f"theta={self.theta} (it takes a number of steps, 1 or more)"
            )

    def step(self, x, h, m):
        A, B = _discretized(self.order, float(self.theta))
        u = linear(x.u) + linear(h.u) + linear(m.v)
        m = fixed(A, m, name="A") + fixed(B, u, name="B")
        return tanh(linear(x.n) + linear(h.n) + linear(m.k)), m


@lru_cache(maxsize=16)
def _discretized(order, theta):
    """The matrices of theta m' = A m + B u over one step in which u stays as it is, from exp of both in one matrix.

    Summed in an order of its own, so that they are the same numbers on every machine: a stored cell is known by them.
    """
    size = order + 1
    whole = [[0.0] * size for _ in range(size)]
    for i in range(order):
        for j in range(order):
            whole[i][j] = (2 * i + 1) * (-1.0 if i < j else (-1.0) ** (i - j + 1)) / theta
        whole[i][order] = (2 * i + 1) * (-1.0) ** i / theta
    halvings = max(0, ceil(log2(max(sum(map(abs, row)) for row in whole))) + 1)
    whole = [
        [each / 2.0**halvings for each in row] for row in whole
    ]  # of a norm at most 1/2: 18 terms are exact
    term = [[float(i == j) for j in range(size)] for i in range(size)]
    found = term
    for number in range(1, 19):
        term = [[each / number for each in row] for row in _product(term, whole)]
        found = [list(map(add, *rows)) for rows in zip(found, term, strict=True)]
    for _ in range(halvings):
        found = _product(found, found)
    return tuple(tuple(row[:order]) for row in found[:order]), tuple((row[order],) for row in found[:order])


def _product(a, b):
    """The product, summed one column of `a` after another; the same numbers in lists and in arrays."""
    if len(b) > _LONGEST_LIST:
        import numpy as np

        a, b = np.array(a), np.array(b)
        found = a[:, :1] * b[:1]
        for k in range(1, len(b)):
            found += a[:, k : k + 1] * b[k : k + 1]
        return found.tolist()
    found = [[row[0] * each for each in b[0]] for row in a]
    for k in range(1, len(b)):
        found = [
            [so_far + row[k] * each for so_far, each in zip(sums, b[k], strict=True)]
            for sums, row in zip(found, a, strict=True)
        ]
    return found
