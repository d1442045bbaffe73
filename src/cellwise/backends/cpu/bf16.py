"""Numbers of bfloat16 in memory, float32 in registers: how they are read, written and multiplied.

A bfloat16 number is the upper half of a float32 one. Two that lie side by side are a word; the product of a word with a
word adds both their products to a float32 number, in one instruction where the processor has it (`Target.dots`), else
as two multiply-adds of float32. The product of two bfloat16 numbers is exact in float32, so that either way each of the
two additions rounds once.
"""

from __future__ import annotations

from llvmlite import ir

from cellwise.backends.cpu.code import Code, Value
from cellwise.backends.cpu.vectors import Lanes

BYTES = 2  # of a number in memory
WORD = 4  # of two numbers; and of one that is computed with
I16, I32 = ir.IntType(16), ir.IntType(32)
_HIGH = -(1 << 16)  # the bits of the second number of a word


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no class for."""

    def _to_string(self) -> str:
        return "bfloat"


_BFLOAT = _BFloat()


def _instruction(v: Lanes, name: str, result: ir.Type, *values: Value) -> Value:
    """An instruction of AVX-512 BF16, on vectors as wide as these."""
    full = f"llvm.x86.avx512bf16.{name}.{32 * v.lanes}"
    kind = ir.FunctionType(result, [value.type for value in values])
    module = v.b.module
    return v.b.call(module.globals.get(full) or ir.Function(module, kind, full), values)


def widened(v: Lanes, numbers: Value) -> Value:
    """A vector of bfloat16 numbers, as 16-bit integers, in float32."""
    b = v.b
    return b.bitcast(b.shl(b.zext(numbers, v.integers), v.whole(16)), v.vector)


def narrowed(v: Lanes, values: Value, dots: bool) -> Value:
    """A vector of float32 numbers as the nearest bfloat16 ones, those in the middle to the even one; NaN stays NaN."""
    b, kind = v.b, ir.VectorType(I16, v.lanes)
    if dots and v.lanes > 4:
        rounded = _instruction(v, "cvtneps2bf16", ir.VectorType(_BFLOAT, v.lanes), values)
        return b.bitcast(rounded, kind)
    bits = b.bitcast(values, v.integers)
    odd = b.and_(b.lshr(bits, v.whole(16)), v.whole(1))
    nearest = b.add(b.add(bits, v.whole(0x7FFF)), odd)
    quiet = b.or_(bits, v.whole(1 << 22))  # adding could turn NaN into infinity, or carry over its sign
    nearest = b.select(b.fcmp_unordered("uno", values, values), quiet, nearest)
    return b.trunc(b.lshr(nearest, v.whole(16)), kind)


def dot(v: Lanes, words: Value, weights: Value, sums: Value, dots: bool) -> Value:
    """sums + both products of the numbers of a vector of words with those of another (as integers)."""
    b = v.b
    if dots:
        pairs = ir.VectorType(_BFLOAT, 2 * v.lanes)
        return _instruction(v, "dpbf16ps", v.vector, sums, b.bitcast(words, pairs), b.bitcast(weights, pairs))
    (low, high), (low_weights, high_weights) = halves(v, words), halves(v, weights)
    return v.fma(high, high_weights, v.fma(low, low_weights, sums))


def halves(v: Lanes, words: Value) -> tuple[Value, Value]:
    """The first and the second numbers of a vector of words, in float32."""
    b = v.b
    return b.bitcast(b.shl(words, v.whole(16)), v.vector), b.bitcast(b.and_(words, v.whole(_HIGH)), v.vector)


class Bf16Memory(Code):
    """Code whose addresses count bfloat16 numbers, where nothing else is said, and that computes in float32."""

    def at(self, pointer: Value, index: Value, kind: ir.Type | None = None) -> Value:
        return super().at(pointer, index, kind or I16)

    def load(self, pointer: Value) -> Value:
        kind = ir.VectorType(I16, self.v.lanes)
        return widened(self.v, self.b.load(pointer, typ=kind, align=BYTES))

    def load_one(self, pointer: Value) -> Value:
        return one_widened(self, self.b.load(pointer, typ=I16, align=BYTES))

    def store(self, value: Value, pointer: Value) -> None:
        self.b.store(narrowed(self.v, value, self.target.dots), pointer, align=BYTES)

    def store_one(self, value: Value, pointer: Value) -> None:
        numbers = narrowed(self.v, value, self.target.dots)
        self.b.store(self.v.first(numbers), pointer, align=BYTES)


def one_widened(code: Code, number: Value) -> Value:
    """One bfloat16 number in float32."""
    b = code.b
    return b.bitcast(b.shl(b.zext(number, I32), ir.Constant(I32, 16)), code.v.element)
