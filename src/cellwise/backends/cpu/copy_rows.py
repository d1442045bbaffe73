"""Copies of rows that lie otherwise: what a caller gives or gets has as many numbers as there are, and kernels want
whole vectors.

    void copy_rows(int64 *table)    of table[0] copies:

    copy    to[i, k] = from[i, k], and 0 behind the last number of a row up to `width`
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from llvmlite import ir

from cellwise.backends.cpu.code import POINTER, Code, Value
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target

# `rows` of so many `numbers`, one `to row` or `from row` numbers behind the other. `width` is `numbers`, or these in
# whole vectors.
COPY = ("to", "to row", "from", "from row", "rows", "numbers", "width")


def emit_copy_rows(element_bytes: int, target: Target) -> ir.Module:
    """The loop over copies for an element type."""
    code = Code("copy_rows", element_bytes, target)
    b, whole = code.b, code.whole
    table, _ = code.function.args
    with code.loop("copy", code.load_whole(table, 0)) as number:
        place = b.add(b.mul(number, whole(len(COPY))), whole(1))
        word = {name: code.load_whole(table, b.add(place, whole(i)), name) for i, name in enumerate(COPY)}
        to, source = (b.inttoptr(word[name], POINTER) for name in ("to", "from"))
        copied(code, (to, word["to row"]), (source, word["from row"]), *(word[name] for name in COPY[4:]))
    b.ret_void()
    return code.module


def copied(
    code: Code,
    to: tuple[Value, Value],
    source: tuple[Value, Value],
    rows: Value,
    numbers: Value,
    width: Value,
) -> None:
    """One such copy; of either side where it begins, and how many numbers a row is behind the other."""
    b, whole, lanes = code.b, code.whole, code.v.lanes
    left = b.urem(numbers, whole(lanes))
    end = b.sub(numbers, left)
    there, wanted = code.lanes_below(left), code.lanes_below(b.sub(width, end))
    with code.loop("row", rows) as row:
        into, own = (code.at(start, b.mul(row, each)) for start, each in (to, source))
        with code.loop("vector", end, step=lanes) as k:
            code.store(code.load(code.at(own, k)), code.at(into, k))
        with b.if_then(b.icmp_signed(">", left, whole(0))):
            code.store_some(code.load_some(code.at(own, end), there), code.at(into, end), wanted)


def table_of(*copies: Sequence[int]) -> np.ndarray:
    """The table of some copies, each the words that `COPY` names."""
    return np.array([len(copies), *itertools.chain(*copies)], np.int64)


@cache
def copy_rows(element_bytes: int, target: Target) -> Callable[[int, int], None]:
    """The compiled loop."""
    return load("copy_rows", object_code(emit_copy_rows(element_bytes, target), target))
