"""Weights of float32 as two of bfloat16, in the order in which `bf16_products` reads them: first all high parts of a
term, then all low ones. Biases stay float32.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from cellwise.backends.cpu.bf16 import I32, WORD
from cellwise.backends.cpu.bf16_pack import Bf16Packer, PackWords
from cellwise.backends.cpu.code import Value
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.three_kernel import cut


class ThreePacker(Bf16Packer):
    """Plans the packing of a program's weights of float32."""

    source_bytes = WORD
    parts = 2


class _Pack(PackWords):
    """Emits the loop over jobs."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.source = self.v.element

    def _number(self, pointer: Value) -> Value:
        return self.b.load(pointer, typ=I32, align=WORD)

    def _words(
        self,
        job: dict[str, Value],
        into: Value,
        out_of: Value,
        gathered: Callable[[Callable[[Value], Value]], Value],
    ) -> None:
        b, v, from_k = self.b, self.v, job["from_k"]
        is_low = b.icmp_signed("!=", job["low"], self.whole(0))

        def part(number: Value) -> Value:
            """A number of each unit, as the lower half of a word."""
            row = self.at(out_of, b.mul(number, from_k))
            values = b.bitcast(gathered(lambda unit: self._number(self.at(row, unit))), v.vector)
            high, low = cut(v, values, self.target.dots)
            return b.zext(b.select(is_low, low, high), v.integers)

        whole = b.lshr(job["length"], self.whole(1))
        with self.loop("words", whole) as word:
            first = b.mul(word, self.whole(2))
            second = b.shl(part(b.add(first, self.whole(1))), v.whole(16))
            words = b.or_(part(first), second)
            b.store(words, self.at(into, b.mul(word, job["to_k"])), align=WORD)
        with b.if_then(b.icmp_signed("!=", b.and_(job["length"], self.whole(1)), self.whole(0))):
            last = part(b.mul(whole, self.whole(2)))
            b.store(last, self.at(into, b.mul(whole, job["to_k"])), align=WORD)


def emit_three_pack(target: Target) -> ir.Module:
    """void pack(int64 *jobs, int64 *given), as `pack.emit_pack` has it."""
    return _Pack(target).emit()
