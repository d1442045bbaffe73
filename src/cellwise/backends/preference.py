"""What "auto" prefers on CPU tensors where several backends can run a cell. One table, as measured.

Each line is held against `cellwise bench`, whose bench.json keeps all shapes and ratios. A cell without a line goes
by the order of the backends.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from cellwise.backends.base import Setting, Stack
from cellwise.cells.base import Cell
from cellwise.cells.gru import GRU
from cellwise.cells.lstm import LSTM
from cellwise.cells.rnn import RNN


@dataclass(frozen=True)
class Preference:
    """A backend, and why, as the end of a sentence."""

    backend: str
    reason: str


_FASTER = "measured faster than torch's operator for {cell} on a CPU (`cellwise bench {cell}`)"
_NO_FASTER = "the kernels were not measured faster for {cell} at all shapes (`cellwise bench {cell}`)"

MEASURED: tuple[tuple[Cell, str, str], ...] = (
    (GRU(), "cpu", _FASTER),
    (RNN(nonlinearity="tanh"), "cpu", _FASTER),
    (RNN(nonlinearity="relu"), "cpu", _FASTER),
    (LSTM(), "native", _NO_FASTER),
)

_TRACED = Preference(
    "cpu", "one call in a compiled graph, where torch's operator would be unrolled step by step"
)


def preferred(stack: Stack, setting: Setting) -> Preference | None:
    """The backend to take first, if it can run the call; None where nothing was measured."""
    # Under autocast the results are to have the dtypes that torch's operators give.
    if setting.device.type != "cpu" or setting.autocast:
        return None
    if setting.traced:
        return _TRACED
    return _by_equations().get(stack.plan.graph.fingerprint)


@cache
def _by_equations() -> dict[str, Preference]:
    return {
        cell.graph.fingerprint: Preference(backend, reason.format(cell=cell.name))
        for cell, backend, reason in MEASURED
    }
