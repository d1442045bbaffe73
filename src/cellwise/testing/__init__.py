"""Check a cell, a layer or a backend, with the same tools that cellwise is tested with.

>>> from cellwise import Cell, tanh
>>> class Leaky(Cell):
...     gates = ("n",)
...     rate: float = 0.1
...
...     def step(self, x, h):
...         return (1 - self.rate) * h + self.rate * tanh(x.n + h.n)
>>> print(check_cell(Leaky, backend="reference"))
Leaky on reference: gradients, agreement, stream, ragged, resets

- `checks`: `check_cell`, everything at once, and each check by itself.
- `cases`: the one list of conformance cases, cells x shapes x options; every backend walks it.
- `compare`: what a layer computes, by name (outputs, final states, every gradient), and what counts as equal.
- `naive`: the slowest way to run a layer, one row, one step and one equation at a time; the truth for the others.
- `poison`: uninitialised memory reads as NaN.
- `strategies`: random well-formed cells for Hypothesis; import it by its own name, since it needs hypothesis.
"""

from cellwise.testing.cases import CASES, Arguments, Case, cases_of
from cellwise.testing.checks import Report, check_cell
from cellwise.testing.compare import Results, assert_as_good, assert_close, pooled, results
from cellwise.testing.naive import run_naively
from cellwise.testing.poison import poisoned_memory

__all__ = [
    "CASES",
    "Arguments",
    "Case",
    "Report",
    "Results",
    "assert_as_good",
    "assert_close",
    "cases_of",
    "check_cell",
    "poisoned_memory",
    "pooled",
    "results",
    "run_naively",
]
