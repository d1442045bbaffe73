"""A digest of memory, of 64 bits, at the speed at which memory is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from llvmlite import ir

from cellwise.backends.compiled.memory import WORD
from cellwise.backends.cpu.code import I64, POINTER, Code, Value
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target, host

I32 = ir.IntType(32)
_VECTORS = 8  # under way at once
# Odd numbers with bits all over, as xxHash has them; a number is mixed in, turned, and spread by a product.
_SPREAD, _TURN, _FIRST = 0x9E3779B1, 13, 0x85EBCA77


def emit_digest(target: Target) -> ir.Module:
    """void digest(int64 *table, int64 *result): of table[0] parts, each an address and a number of words."""
    code = Code("digest", WORD, target)
    b, whole, lanes = code.b, code.whole, target.lanes(WORD)
    kind = ir.VectorType(I32, lanes)
    table, result = code.function.args
    block = lanes * _VECTORS

    def mixed(total: Value, value: Value, like: ir.Type) -> Value:
        def number(each: int) -> ir.Constant:
            return ir.Constant(like, [each] * lanes if like is kind else each)

        both = b.xor(total, value)
        reversed = b.or_(b.shl(both, number(_TURN)), b.lshr(both, number(32 - _TURN)))
        return b.mul(reversed, number(_SPREAD))

    first = [ir.Constant(kind, [_FIRST + i * lanes + j for j in range(lanes)]) for i in range(_VECTORS)]
    sums: list[Value] = [*first, ir.Constant(I32, _FIRST)]
    with code.summing("part", code.load_whole(table, 0), sums) as (part, before, after):
        place = b.add(b.mul(part, whole(2)), whole(1))
        address = b.inttoptr(b.load(code.at(table, place, I64), typ=I64), POINTER)
        words = b.load(code.at(table, b.add(place, whole(1)), I64), typ=I64)
        blocks = b.sub(words, b.urem(words, whole(block)))
        vectors = b.sub(words, b.urem(words, whole(lanes)))
        wide = before[:_VECTORS]
        with code.summing("block", blocks, wide, step=block) as (word, running, following):
            for i, total in enumerate(running):
                at = code.at(address, b.add(word, whole(i * lanes)), I32)
                following.append(mixed(total, b.load(at, typ=kind, align=WORD), kind))
        single = wide[:1]
        with code.summing("vector", vectors, single, first=blocks, step=lanes) as (word, running, following):
            at = code.at(address, word, I32)
            following.append(mixed(running[0], b.load(at, typ=kind, align=WORD), kind))
        rest = [before[_VECTORS]]
        with code.summing("word", words, rest, first=vectors) as (word, running, following):
            following.append(mixed(running[0], b.load(code.at(address, word, I32), typ=I32), I32))
        after += [*single, *wide[1:], *rest]
    # All vectors as one, by what keeps a change in any of them; then its lanes, one after the other.
    vector = sums[0]
    for other in sums[1:-1]:
        vector = mixed(vector, other, kind)
    total = b.zext(sums[-1], I64)
    for lane in range(lanes):
        one = b.zext(b.extract_element(vector, ir.Constant(I32, lane)), I64)
        total = b.mul(b.xor(total, one), whole(0x9E3779B97F4A7C15 - 2**64))
        total = b.xor(total, b.lshr(total, whole(29)))
    b.store(total, result)
    b.ret_void()
    return code.module


@cache
def digest() -> Callable[[int, int], None]:
    """The compiled function, for this machine."""
    return load("digest", object_code(emit_digest(host()), host()))
