"""Weights of bfloat16 in the order in which `bf16_products` reads them; biases in float32.

The jobs are those of `pack`, whose strides count words of what is packed and numbers of a weight:

    for word, lane:  to[word, lane] = from[lane, 2 word], from[lane, 2 word + 1]; zero up to a whole tile
    for lane:        to[lane] (+)= from[lane], of a bias, whose `from_k` is 0
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from cellwise.backends.cpu.amx import WORDS, whole_words
from cellwise.backends.cpu.bf16 import BYTES, I16, I32, WORD, one_widened
from cellwise.backends.cpu.code import I64, Code, Value
from cellwise.backends.cpu.pack import COLUMNS, Packer
from cellwise.backends.cpu.target import Target
from cellwise.plan.program import Program


class Bf16Packer(Packer):
    """Plans the packing of a program's weights of bfloat16."""

    source_bytes = BYTES

    def __init__(self, program: Program, target: Target, *sizes: Any) -> None:
        self.rounded = WORDS if target.tiles else 1  # words to which lengths are rounded up
        super().__init__(program, target, *sizes)

    def steps(self, length: int) -> int:
        return -(-length // (2 * self.rounded)) * self.rounded


class PackWords(Code):
    """Emits the loop over jobs."""

    def __init__(self, target: Target) -> None:
        super().__init__("pack", WORD, target)
        self.vector = ir.VectorType(I32, self.v.lanes)
        self.source: ir.Type = I16  # a number of a weight

    def emit(self) -> ir.Module:
        b, whole = self.b, self.whole
        jobs, given = self.function.args
        with self.loop("job", self.load_whole(given, 1), first=self.load_whole(given, 0)) as number:
            table = self.at(jobs, b.mul(number, whole(len(COLUMNS))), I64)
            job = {name: self.load_whole(table, i, name) for i, name in enumerate(COLUMNS)}
            weight = self.load_whole(given, b.add(job["weight"], whole(3)))
            to = b.inttoptr(b.add(self.load_whole(given, 2), job["to"]), ir.PointerType())
            source = b.inttoptr(b.add(weight, job["source"]), ir.PointerType())
            self._do(job, to, source)
        b.ret_void()
        return self.module

    def _do(self, job: dict[str, Value], into: Value, out_of: Value) -> None:
        """A vector of units for every word."""
        b, whole, valid = self.b, self.whole, job["units"]
        is_there = [b.icmp_signed("<", whole(lane), valid) for lane in range(self.v.lanes)]
        # A lane without a unit reads the first unit's number, and then is set to zero; where there is none at all,
        # nothing is read.
        units = [
            b.select(there, b.mul(whole(lane), job["from_unit"]), whole(0))
            for lane, there in enumerate(is_there)
        ]
        mask: Value = ir.Constant(ir.VectorType(ir.IntType(1), self.v.lanes), ir.Undefined)
        for lane, there in enumerate(is_there):
            mask = b.insert_element(mask, there, ir.Constant(I32, lane))

        def gathered(one: Callable[[Value], Value]) -> Value:
            value: Value = ir.Constant(self.vector, ir.Undefined)
            for lane, unit in enumerate(units):
                value = b.insert_element(value, one(unit), ir.Constant(I32, lane))
            return b.select(mask, value, self.v.whole(0))

        is_bias = b.icmp_signed("==", job["from_k"], whole(0))
        words = b.lshr(b.add(job["length"], whole(1)), whole(1))
        all_words = words
        if self.target.tiles:
            all_words = b.select(is_bias, words, whole_words(self, words))
        with b.if_else(b.icmp_signed(">", valid, whole(0))) as (some, none):
            with some, b.if_else(is_bias) as (bias, weight):
                with bias:
                    self._bias(
                        job, into, gathered(lambda unit: self._number(self.at(out_of, unit, self.source)))
                    )
                with weight:
                    self._words(job, into, out_of, gathered)
                    if self.target.tiles:
                        self._zero(job, into, words, all_words)
            with none, b.if_then(b.icmp_signed("==", job["add"], whole(0))):
                self._zero(job, into, whole(0), all_words)

    def _zero(self, job: dict[str, Value], into: Value, first: Value, end: Value) -> None:
        with self.loop("none", end, first=first) as word:
            place = self.at(into, self.b.mul(word, job["to_k"]))
            self.b.store(self.v.whole(0), place, align=WORD)

    def _number(self, pointer: Value) -> Value:
        """The bits in float32 of a number."""
        return self.b.bitcast(one_widened(self, self.b.load(pointer, typ=I16, align=BYTES)), I32)

    def _bias(self, job: dict[str, Value], into: Value, value: Value) -> None:
        b = self.b
        numbers = b.bitcast(value, self.v.vector)
        with b.if_else(b.icmp_signed("!=", job["add"], self.whole(0))) as (adding, placing):
            with adding:
                self.store(b.fadd(numbers, self.load(into)), into)
            with placing:
                self.store(numbers, into)

    def _words(
        self,
        job: dict[str, Value],
        into: Value,
        out_of: Value,
        gathered: Callable[[Callable[[Value], Value]], Value],
    ) -> None:
        b, from_k = self.b, job["from_k"]
        whole = b.lshr(job["length"], self.whole(1))

        def put(word: Value, one: Callable[[Value], Value]) -> None:
            b.store(gathered(one), self.at(into, b.mul(word, job["to_k"])), align=WORD)

        def low(pointer: Value) -> Value:
            return b.zext(b.load(pointer, typ=I16, align=BYTES), I32)

        with b.if_else(b.icmp_signed("==", from_k, self.whole(1))) as (beside, apart):
            with beside, self.loop("beside", whole) as word:
                row = self.at(out_of, word, I32)
                put(word, lambda unit: b.load(self.at(row, unit, I16), typ=I32, align=BYTES))
            with apart, self.loop("apart", whole) as word:
                row = self.at(out_of, b.mul(b.mul(word, self.whole(2)), from_k), I16)
                next_row = self.at(row, from_k, I16)

                def both(unit: Value) -> Value:
                    high = b.shl(low(self.at(next_row, unit, I16)), ir.Constant(I32, 16))
                    return b.or_(low(self.at(row, unit, I16)), high)

                put(word, both)
        with b.if_then(b.icmp_signed("!=", b.and_(job["length"], self.whole(1)), self.whole(0))):
            row = self.at(out_of, b.mul(b.mul(whole, self.whole(2)), from_k), I16)
            put(whole, lambda unit: low(self.at(row, unit, I16)))


def emit_bf16_pack(target: Target) -> ir.Module:
    """void pack(int64 *jobs, int64 *given), as `pack.emit_pack` has it for weights of the type that is computed in."""
    return PackWords(target).emit()
