"""Numbers by numbers: dropout between layers, whose masks are drawn beforehand.

void multiply(int64 *table)    of table[0] jobs:

job    to[i] = left[i] right[i]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from llvmlite import ir

from cellwise.backends.cpu.code import POINTER, Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target

MULTIPLY = ("to", "left", "right", "numbers")


def emit_multiply(element_bytes: int, target: Target) -> ir.Module:
    """The loop over jobs for an element type."""
    code = Code("multiply", element_bytes, target)
    b, whole, lanes = code.b, code.whole, code.v.lanes
    table, _ = code.function.args
    with code.loop("job", code.load_whole(table, 0)) as number:
        place = b.add(b.mul(number, whole(len(MULTIPLY))), whole(1))
        words = [code.load_whole(table, b.add(place, whole(i)), name) for i, name in enumerate(MULTIPLY)]
        to, left, right = (b.inttoptr(word, POINTER) for word in words[:3])
        rest = b.urem(words[3], whole(lanes))
        end = b.sub(words[3], rest)
        with code.loop("vector", end, step=lanes) as k:
            value = b.fmul(code.load(code.at(left, k)), code.load(code.at(right, k)))
            code.store(value, code.at(to, k))
        mask = code.lanes_below(rest)
        last = b.fmul(*(code.load_some(code.at(each, end), mask) for each in (left, right)))
        code.store_some(last, code.at(to, end), mask)
    b.ret_void()
    return code.module


@cache
def multiply(element_bytes: int, target: Target) -> Callable[[int, int], None]:
    """The compiled loop."""
    return load("multiply", object_code(emit_multiply(element_bytes, target), target))
