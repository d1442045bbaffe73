"""The products of a stage whose operands and weights are bfloat16 numbers, as `products` has them for float32.

    void products(int64 *call, int64 pair)

Where that reads a number of an operand, this reads a word: two numbers, whose products with two weights of a unit are
added to its sum. Sums, biases and `room` are float32.

A `row` and `length` of a descriptor count numbers. Weights lie as (pair, panel, word, vector, lane, 2), k = 2 word + 0
or 1, zero behind the last; this is also the order in which tile registers take them, for which zeros fill whole tiles.
Of an odd length the last number of an operand is read alone: what lies behind it may be anything.

Where the target has tile registers, `amx_products` does all rows if they are not few.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from llvmlite import ir

from cellwise.backends.cpu.amx import FEWEST_ROWS, tiles_for, whole_words
from cellwise.backends.cpu.amx_products import TileProducts
from cellwise.backends.cpu.bf16 import BYTES, I16, I32, WORD, dot
from cellwise.backends.cpu.code import Value
from cellwise.backends.cpu.compile import object_code_by
from cellwise.backends.cpu.products import _UNROLLED, FEW_ROWS, MADE_BY, Products
from cellwise.backends.cpu.target import Target


def bf16_routine_name(width: int, target: Target) -> str:
    """Of the routine for panels of so many vectors."""
    tiles = f"_tiles_{target.tiles}" if target.tiles else ""
    return f"products_{width}v{target.lanes(WORD)}bf16{tiles}"


class Bf16Products(Products):
    """Emits the routine for panels of `width` vectors, into `module` if one is given."""

    def __init__(self, width: int, target: Target, module: ir.Module | None = None) -> None:
        super().__init__(width, WORD, target, module, bf16_routine_name(width, target))
        self.tiles = tiles_for(self)

    def _rows(self, rows: Value) -> None:
        if self.tiles is None:
            super()._rows(rows)
            return
        b = self.b
        with b.if_else(b.icmp_signed(">=", rows, self.whole(FEWEST_ROWS))) as (many, few):
            with many:
                TileProducts(self, self.tiles, rows).emit()
            with few:
                super()._rows(rows)

    def _term(
        self,
        term: Value,
        row: Value,
        rows: int,
        first: Value,
        rooms: list[Value],
        carried: list[Value],
        block: Value | None,
    ) -> list[Value]:
        """The sums with one operand's products. Sums in float32 of bfloat16 products need not be put away."""
        b = self.b
        words = self.term_words(term)
        length = words["length"]
        pairs = b.lshr(b.add(length, self.whole(1)), self.whole(1), name="words")
        pairs = pairs if self.tiles is None else whole_words(self, pairs)
        operands = self.operands(words, row, rows, I16)
        weights = self.panel_weights(words, first, len(rooms), pairs)
        ahead = None if block is None else self._ahead(weights[0], pairs, block)
        *sums, had, away = carried
        return [*self._words_of(length, operands, weights, sums, ahead), had, away]

    def _words_of(
        self,
        length: Value,
        operands: list[Value],
        weights: list[Value],
        sums: list[Value],
        ahead: Value | None,
    ) -> list[Value]:
        b, each = self.b, len(operands) * len(weights) * self.width
        sets = len(sums) // each
        at_once = max(sets, _UNROLLED if len(operands) > FEW_ROWS else 1)
        whole = b.lshr(length, self.whole(1))
        done = b.sub(whole, b.urem(whole, self.whole(at_once)))
        with self.summing("word", done, sums, step=at_once) as (word, running, following):
            following += running
            at_word = self._at(word, operands, weights)
            if ahead is not None:
                self._fetch(self.beside(ahead, b.mul(word, self.whole(self.v.lanes))), at_once)
            for place in range(at_once):
                own_set = slice(place % sets * each, (place % sets + 1) * each)
                following[own_set] = self._add(place, *at_word, following[own_set])
        some, others = sums[:each], sums[each:]
        with self.summing("word", whole, some, first=done) as (word, running, following):
            following += self._add(0, *self._at(word, operands, weights), running)

        def last(values: list[Value]) -> list[Value]:
            return self._add(0, *self._at(whole, operands, weights), values, I16)

        is_odd = b.icmp_signed("!=", b.and_(length, self.whole(1)), self.whole(0))
        return [*self.changed_if(is_odd, some, last), *others]

    def _at(self, k: Value, operands: list[Value], panels: list[Value]) -> tuple[list[Value], list[Value]]:
        start = self.b.mul(k, self.whole(self.width * self.v.lanes))
        return (
            [self.at(operand, k, I32) for operand in operands],
            [self.at(panel, start) for panel in panels],
        )

    def _add(
        self,
        place: int,
        operands: list[Value],
        panels: list[Value],
        sums: list[Value],
        read: ir.IntType = I32,
    ) -> list[Value]:
        b, v = self.b, self.v
        weights = [
            b.load(
                self.at(panel, self.whole(place * self.width + vector), v.vector), typ=v.integers, align=WORD
            )
            for panel in panels
            for vector in range(self.width)
        ]
        added = [*sums]
        for row, operand in enumerate(operands):
            word = b.load(self.at(operand, self.whole(place), I32), typ=read, align=BYTES)
            words = v.splat(b.bitcast(word if read is I32 else b.zext(word, I32), v.element))
            words = b.bitcast(words, v.integers)
            for vector, weight in enumerate(weights):
                own = vector * len(operands) + row
                added[own] = dot(v, words, weight, sums[own], self.target.dots)
        return added


# All files whose text the routine depends on.
BF16_MADE_BY = (
    *MADE_BY,
    *(
        Path(__file__).with_name(name)
        for name in ("bf16_products.py", "bf16.py", "amx.py", "amx_products.py")
    ),
)


@cache
def bf16_routine(width: int, target: Target) -> bytes:
    """The object code of the routine for panels of so many vectors."""
    return object_code_by(
        lambda: Bf16Products(width, target).emit(),
        bf16_routine_name(width, target),
        BF16_MADE_BY,
        target,
    )
