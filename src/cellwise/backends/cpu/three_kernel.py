"""The kernel of a float32 program whose products are three of bfloat16 each, on tile registers.

A number of float32 is the sum of two of bfloat16 but for its last eight bits: x = high + low. A product is then

    high high + high low + low high

with sums in float32: about 16 bits, what torch.set_float32_matmul_precision("high") allows. Infinity becomes NaN, and
so does what bfloat16 rounds to infinity, beyond 3.39e38.

What a stage multiplies is cut in two once a step, where tiles find it: behind the sums of `room`. Weights are packed
twice, high and then low (`three_pack.py`). All else is the float32 kernel: tape, states and gradients at gates are
those of float32.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from cellwise.backends.cpu.amx import NUMBERS, whole_words
from cellwise.backends.cpu.amx_kernel import TiledEmitter, in_tiles
from cellwise.backends.cpu.bf16 import BYTES, I16, I32, WORD, narrowed, widened
from cellwise.backends.cpu.bf16_products import bf16_routine_name
from cellwise.backends.cpu.code import I8, POINTER, Value
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES, Group
from cellwise.backends.cpu.vectors import Lanes
from cellwise.plan.program import MatmulTerm, Program, Stage


def cut(v: Lanes, values: Value, dots: bool) -> tuple[Value, Value]:
    """The high and the low part of a vector of float32 numbers; of infinity the low part is NaN."""
    high = narrowed(v, values, dots)
    return high, narrowed(v, v.b.fsub(values, widened(v, high)), dots)


class ThreeEmitter(TiledEmitter):
    """Emits it for a target with tile registers."""

    products_of_a_term = 3
    copies_of_a_row = 2

    def __init__(self, program: Program, target: Target) -> None:
        super().__init__(program, WORD, target)

    def products_name(self, width: int) -> str:
        return bf16_routine_name(width, self.target)

    def _write_descriptor(self, stage: Stage, group: Group, tiles: Value) -> None:
        self.pairs = self.b.sdiv(self.b.add(tiles, self.whole(TILES - 1)), self.whole(TILES))
        super()._write_descriptor(stage, group, tiles)

    def _term(self, group: Group, term: MatmulTerm) -> dict[str, Value]:
        b, words = self.b, super()._term(group, term)
        length = b.lshr(b.add(words["length"], self.whole(1)), self.whole(1))
        vectors = b.mul(b.mul(self.pairs, whole_words(self, length)), self.whole(group.vectors))
        size = b.mul(vectors, self.whole(self.target.vector_bytes))
        return words | {"low weights": self.at(words["weights"], size, I8)}

    def describe(
        self, group: Group, tiles: Value, given: dict[str, Value], terms: Sequence[dict[str, Value]]
    ) -> None:
        three = []
        for term in terms:
            low = {"operand": term["low operand"], "first": term["low operand"]}
            three += [term, term | {"weights": term["low weights"]}, term | low]
        super().describe(group, tiles, given, three)

    def in_whole_tiles(self, words: dict[str, Value]) -> dict[str, Value]:
        """Both parts of the rows, each in whole tiles."""
        b, v, length, rows = self.b, self.v, words["length"], self.active
        start, width = self.copies_start(), in_tiles(self, length)
        low_start = self.at(start, b.mul(width, self.size["rows"]), I16)
        with self.loop("cut", rows) as row:
            base = b.select(b.icmp_signed("<", row, words["limit"]), words["operand"], words["first"])
            source = self.at(base, b.mul(row, words["row"]))
            to = b.mul(row, width)
            # What is whole vectors, and then whole tiles, where numbers that are not there are zero and not read.
            whole = b.sub(length, b.urem(length, self.whole(v.lanes)))
            with self.loop("whole", whole, step=v.lanes) as number:
                self._put(self.load(self.at(source, number)), b.add(to, number), start, low_start)
            with self.loop("rest", width, first=whole, step=v.lanes) as number:
                left = b.sub(length, number)
                left = b.select(b.icmp_signed(">", left, self.whole(0)), left, self.whole(0))
                values = self._first(self.at(source, number), left)
                self._put(values, b.add(to, number), start, low_start)
        return {"operand": start, "first": start, "row": width, "low operand": low_start}

    def _put(self, values: Value, number: Value, high: Value, low: Value) -> None:
        for part, start in zip(cut(self.v, values, self.target.dots), (high, low), strict=True):
            self.b.store(part, self.at(start, number, I16), align=BYTES)

    def _first(self, pointer: Value, count: Value) -> Value:
        """So many numbers, and zeros behind them."""
        b, v = self.b, self.v
        is_there = b.icmp_signed("<", v.counted(), v.splat(b.trunc(count, I32)))
        kind = ir.FunctionType(v.vector, [POINTER, I32, is_there.type, v.vector])
        name = f"llvm.masked.load.{v.suffix}.p0"
        function = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        return b.call(function, [pointer, ir.Constant(I32, WORD), is_there, v.number(0.0)])


def emit_three(program: Program, target: Target) -> ir.Module:
    """The kernel of a program, without the routines that it calls."""
    assert NUMBERS % target.lanes(WORD) == 0, "a tile is whole vectors"
    return ThreeEmitter(program, target).emit()
