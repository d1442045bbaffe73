"""Whether memory still holds what it held: a digest of 64 bits, at the speed at which memory is read.

Torch counts most changes of a tensor, but not those through `.data`, by numpy, by a fused optimizer or by another
process. Only reading tells.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from llvmlite import ir
from torch import Tensor

from cellwise.backends.cpu.code import I64, POINTER, Code, Value
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target, host

I32 = ir.IntType(32)
_WORD = 4  # bytes: the numbers of float32, and halves of those of float64
_VECTORS = 4  # under way at once
# Odd numbers with bits all over, as xxHash has them; a number is mixed in, turned, and spread by a product.
_SPREAD, _TURN, _FIRST = 0x9E3779B1, 13, 0x85EBCA77
# What a step looks at: so many bytes are read in about a microsecond.
_AT_ONCE = 2**16


def emit_digest(target: Target) -> ir.Module:
    """void digest(int64 *table, int64 *result): of table[0] parts, each an address and a number of words."""
    code = Code("digest", _WORD, target)
    b, whole, lanes = code.b, code.whole, target.lanes(_WORD)
    kind = ir.VectorType(I32, lanes)
    table, result = code.function.args
    block = lanes * _VECTORS

    def mixed(total: Value, value: Value, like: ir.Type) -> Value:
        def number(each: int) -> ir.Constant:
            return ir.Constant(like, [each] * lanes if like is kind else each)

        both = b.xor(total, value)
        turned = b.or_(b.shl(both, number(_TURN)), b.lshr(both, number(32 - _TURN)))
        return b.mul(turned, number(_SPREAD))

    first = [ir.Constant(kind, [_FIRST + i * lanes + j for j in range(lanes)]) for i in range(_VECTORS)]
    sums: list[Value] = [*first, ir.Constant(I32, _FIRST)]
    with code.summing("part", code.load_whole(table, 0), sums) as (part, before, after):
        place = b.add(b.mul(part, whole(2)), whole(1))
        address = b.inttoptr(b.load(code.at(table, place, I64), typ=I64), POINTER)
        words = b.load(code.at(table, b.add(place, whole(1)), I64), typ=I64)
        blocks = b.sub(words, b.urem(words, whole(block)))
        wide = before[:_VECTORS]
        with code.summing("block", blocks, wide, step=block) as (word, running, following):
            for i, total in enumerate(running):
                at = code.at(address, b.add(word, whole(i * lanes)), I32)
                following.append(mixed(total, b.load(at, typ=kind, align=_WORD), kind))
        rest = [before[_VECTORS]]
        with code.summing("word", words, rest, first=blocks) as (word, running, following):
            following.append(mixed(running[0], b.load(code.at(address, word, I32), typ=I32), I32))
        after += [*wide, *rest]
    total = b.zext(sums[-1], I64)
    for vector in sums[:-1]:
        for lane in range(lanes):
            one = b.zext(b.extract_element(vector, ir.Constant(I32, lane)), I64)
            total = b.mul(b.xor(total, one), whole(0x9E3779B97F4A7C15 - 2**64))
            total = b.xor(total, b.lshr(total, whole(29)))
    b.store(total, result)
    b.ret_void()
    return code.module


@cache
def _digest() -> Callable[[int, int], None]:
    return load("digest", object_code(emit_digest(host()), host()))


class Memory:
    """What some tensors held when this was made. They must stay where they are while it is asked.

    Each question looks at up to 64 KiB, and the next one goes on behind: what is no larger is looked at as a whole
    every time.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tables = [_table(parts) for parts in _shares(tensors)]
        self._result = ctypes.c_int64()
        self._call, self._at = _digest(), ctypes.addressof(self._result)
        self._held = [self._look(table.ctypes.data) for table in self._tables]
        self._addresses = [table.ctypes.data for table in self._tables]
        self._next = 0

    def _look(self, table: int) -> int:
        self._call(table, self._at)
        return self._result.value

    def has_changed(self) -> bool:
        """Whether the part that it is the turn of holds something else."""
        if not self._addresses:
            return False
        turn = self._next
        self._next = turn + 1 if turn + 1 < len(self._addresses) else 0
        self._call(self._addresses[turn], self._at)
        return self._result.value != self._held[turn]

    def has_changed_anywhere(self) -> bool:
        """Whether any of it holds something else."""
        return any(self._look(each) != held for each, held in zip(self._addresses, self._held, strict=True))


def _shares(tensors: Sequence[Tensor]) -> list[list[tuple[int, int]]]:
    """Address and words of the parts of each share."""
    shares: list[list[tuple[int, int]]] = []
    room = 0
    for tensor in tensors:
        address, left = tensor.data_ptr(), _words(tensor)
        while left:
            if not room:
                shares.append([])
                room = _AT_ONCE // _WORD
            taken = min(left, room)
            shares[-1].append((address, taken))
            address, left, room = address + taken * _WORD, left - taken, room - taken
    return shares


def _words(tensor: Tensor) -> int:
    """From a tensor's first number to its last, whatever lies in between."""
    if not tensor.numel():
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size() // _WORD


def _table(parts: list[tuple[int, int]]) -> np.ndarray:
    return np.array([len(parts), *(each for part in parts for each in part)], np.int64)
