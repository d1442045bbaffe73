from functools import lru_cache

from cellwise.cells.base import Cell
from cellwise.errors import CellOptionError
from cellwise.graph.functions import linear, tanh
from cellwise.graph.gates import fixed

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
    import numpy as np

    size = order + 1
    whole = np.zeros((size, size))
    for i in range(order):
        for j in range(order):
            whole[i, j] = (2 * i + 1) * (-1.0 if i < j else (-1.0) ** (i - j + 1)) / theta
        whole[i, order] = (2 * i + 1) * (-1.0) ** i / theta
    halvings = max(0, int(np.ceil(np.log2(np.abs(whole).sum(1).max()))) + 1)
    whole /= 2.0**halvings  # to a norm of at most 1/2, where 18 terms are exact
    found, term = np.eye(size), np.eye(size)
    for number in range(1, 19):
        term = _product(term, whole) / number
        found += term
    for _ in range(halvings):
        found = _product(found, found)
    return found[:order, :order], found[:order, order:]


def _product(a, b):
    """The product, summed one column of `a` after another."""
    found = a[:, :1] * b[:1]
    for k in range(1, len(b)):
        found += a[:, k : k + 1] * b[k : k + 1]
    return found
