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

from cellwise.backends.cpu.code import POINTER, Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target

# `rows` of so many `numbers`, one `to row` or `from row` numbers behind the other. `width` is `numbers`, or these in
# whole vectors.
COPY = ("to", "to row", "from", "from row", "rows", "numbers", "width")


def emit_copy_rows(element_bytes: int, target: Target) -> ir.Module:
    """The loop over copies for an element type."""
    code = Code("copy_rows", element_bytes, target)
    b, whole, lanes = code.b, code.whole, code.v.lanes
    table, _ = code.function.args
    with code.loop("copy", code.load_whole(table, 0)) as number:
        place = b.add(b.mul(number, whole(len(COPY))), whole(1))
        word = {name: code.load_whole(table, b.add(place, whole(i)), name) for i, name in enumerate(COPY)}
        to, source = (b.inttoptr(word[name], POINTER) for name in ("to", "from"))
        left = b.urem(word["numbers"], whole(lanes))
        end = b.sub(word["numbers"], left)
        there, wanted = code.lanes_below(left), code.lanes_below(b.sub(word["width"], end))
        with code.loop("row", word["rows"]) as row:
            into, own = (
                code.at(start, b.mul(row, word[name]))
                for start, name in ((to, "to row"), (source, "from row"))
            )
            with code.loop("vector", end, step=lanes) as k:
                code.store(code.load(code.at(own, k)), code.at(into, k))
            with b.if_then(b.icmp_signed(">", left, whole(0))):
                code.store_some(code.load_some(code.at(own, end), there), code.at(into, end), wanted)
    b.ret_void()
    return code.module


def table_of(*copies: Sequence[int]) -> np.ndarray:
    """The table of some copies, each the words that `COPY` names."""
    return np.array([len(copies), *itertools.chain(*copies)], np.int64)


@cache
def copy_rows(element_bytes: int, target: Target) -> Callable[[int, int], None]:
    """The compiled loop."""
    return load("copy_rows", object_code(emit_copy_rows(element_bytes, target), target))
