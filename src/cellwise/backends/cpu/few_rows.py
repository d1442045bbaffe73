"""Which calls have so few rows that something is done otherwise for them: by size alone, for kernels and estimates.

A weight is read where it lies (`in_place.py`) by so few rows of all steps that packing it would take longer.
"""

from __future__ import annotations

import math

from cellwise.graph import StepGraph

# By lanes of a vector, how many rows that is at most, and how many for each of D + H: the longer the rows of weights,
# the less adding up lanes counts. Narrower vectors were not measured.
_ROWS = {16: (48, 1 / 6), 8: (12, 1 / 10)}
# The same of transposed weights: rows of all steps; and steps, by how many vectors a row of weights has at most. Sums
# of few vectors wait for each other, and longer rows than 24 vectors are read in pieces.
_ROWS_TRANSPOSED = 128
_STEPS = ((3, 1), (24, 32), (math.inf, 8))
# Rows up to which the products of `small_products`, which pack nothing, take less time than MKL's, if the gradients at
# gates, which are read again for every few columns of the result, stay in the second cache.
MOST_SMALL, MOST_SMALL_BYTES = 256, 2**20
# The same of calls in one thread whose rows have several lengths; beyond the first they have the products of all calls.
# More were not measured.
MOST_RAGGED, MOST_RAGGED_BYTES = 2**13, 2**23


def most_in_place(input_size: int, hidden: int, lanes: int) -> float:
    """The rows of all steps up to which weights are read where they lie."""
    at_most, each = _ROWS.get(lanes, (0, 0.0))
    return min(at_most, each * (input_size + hidden)) if 0 < lanes <= hidden else 0


def are_few_transposed(steps: int, rows: int, hidden: int, lanes: int) -> bool:
    """Whether transposed weights are read where they lie, by so many rows of all steps."""
    is_whole = lanes > 0 and hidden % lanes == 0
    return (
        is_whole
        and 0 < rows <= _ROWS_TRANSPOSED
        and steps <= next(most for vectors, most in _STEPS if hidden <= vectors * lanes)
    )


def is_small(rows: int, gate_bytes: int, hidden: int, lanes: int) -> bool:
    """Whether a dense call in one thread may go in one chain (`small_calls.py`); `gate_bytes`: of a unit's gates."""
    if not lanes or not 0 < rows <= MOST_SMALL:
        return False
    return rows * gate_bytes * -(-hidden // lanes) * lanes <= MOST_SMALL_BYTES


def gates_of(graph: StepGraph) -> int:
    """The gates of a unit that a small call keeps gradients of, with what is asked of x as it is."""
    return max(len(graph.input_gates), len(graph.state_gates), 1) + len(graph.asked_inputs)
