"""The products of a stage for a pair of tiles of units, on tile registers: the part of `bf16_products` for many rows.

Sums stay in their registers from the biases to the last term. Two rows of tiles by two vectors of units take four loads
for four products. A tile has as many rows as there are, at most 16. The last ones end with the last row, and so may do
again what those before them did: the same numbers at the same place.

Here all rows of an operand lie behind `operand`, or all behind `first`, and what lies behind the numbers of a row is
zero up to a whole tile (`amx_kernel` sees to both). Whoever calls the routine has configured tiles of as many rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cellwise.backends.cpu.amx import NUMBERS, OPERANDS, SUMS, WEIGHTS, WORDS, Tiles, tile_rows
from cellwise.backends.cpu.bf16 import BYTES, I16
from cellwise.backends.cpu.code import I8, Value
from cellwise.backends.cpu.products import Products


class TileProducts:
    """Emits the loops into the routine `code`, for all rows of a call."""

    def __init__(self, code: Products, tiles: Tiles, rows: Value) -> None:
        self.code, self.tiles, self.rows = code, tiles, rows
        self.height = tile_rows(code, rows)

    def emit(self) -> None:
        code, b, height = self.code, self.code.b, self.height
        both = b.mul(height, code.whole(2), name="both")
        # Two tiles at a time, of which the second may begin within the first; one at the end if that is enough.
        pairs = b.udiv(b.add(self.rows, b.sub(height, code.whole(1))), both)
        end, last = b.mul(pairs, both), b.sub(self.rows, height)
        columns = range(code.width)
        with code.loop("panel", code.panels) as panel:
            with code.loop("rows", end, step=both) as row:
                second = b.add(row, height)
                second = b.select(b.icmp_signed("<", second, last), second, last)
                for first in columns[::2]:
                    self._block(panel, (row, second), columns[first : first + 2])
            with b.if_then(b.icmp_signed("<", end, self.rows)):
                self._block(panel, (last,), columns)

    def _block(self, panel: Value, rows: Sequence[Value], columns: Sequence[int]) -> None:
        """The sums of tiles that begin with these rows, by some vectors of units of a panel."""
        code, b, tiles = self.code, self.code.b, self.tiles
        vector, width = code.target.vector_bytes, code.width
        places = itertools.product(range(len(rows)), range(len(columns)))
        sums = dict(zip(places, SUMS, strict=False))
        first = b.add(code.before, panel)
        biases = self._bytes(code.descriptor["biases"], b.mul(first, code.whole(width * vector)))
        for (_, column), tile in sums.items():
            start = self._bytes(biases, code.whole(columns[column] * vector))
            tiles.load(tile, start, code.whole(0), self.height)
        with code.loop("term", code.descriptor["terms"]) as term:
            self._term(term, rows, first, columns, sums)
        stride = code.whole(width * vector)
        for (row, column), tile in sums.items():
            place = b.add(b.mul(panel, code.descriptor["stride"]), rows[row])
            start = self._bytes(code.descriptor["room"], b.mul(place, stride))
            tiles.store(tile, self._bytes(start, code.whole(columns[column] * vector)), stride, self.height)

    def _term(
        self,
        term: Value,
        rows: Sequence[Value],
        first: Value,
        columns: Sequence[int],
        sums: dict[tuple[int, int], int],
    ) -> None:
        """Add one operand's products, 32 numbers after the other."""
        code, b, tiles = self.code, self.code.b, self.tiles
        vector, width = code.target.vector_bytes, code.width
        words = code.term_words(term)
        is_here = b.icmp_signed(">", words["limit"], code.whole(0))
        base = b.select(is_here, words["operand"], words["first"])
        operands = [code.at(base, b.mul(row, words["row"]), I16) for row in rows]
        by_row = b.mul(words["row"], code.whole(BYTES))
        blocks = b.udiv(b.add(words["length"], code.whole(NUMBERS - 1)), code.whole(NUMBERS), name="blocks")
        block = WORDS * width * vector  # bytes of a block of a panel's weights
        weights = self._bytes(words["weights"], b.mul(b.mul(first, blocks), code.whole(block)))
        with code.loop("block", blocks) as number:
            at_block = self._bytes(weights, b.mul(number, code.whole(block)))
            numbers = b.mul(number, code.whole(NUMBERS * BYTES))
            for place, column in enumerate(columns):
                weight = WEIGHTS[place % len(WEIGHTS)]
                start = self._bytes(at_block, code.whole(column * vector))
                tiles.load(weight, start, code.whole(width * vector), self.height)
                for row, operand in enumerate(operands):
                    if place == 0:
                        tiles.load(OPERANDS[row], self._bytes(operand, numbers), by_row, self.height)
                    tiles.multiply(sums[row, place], OPERANDS[row], weight, self.height)

    def _bytes(self, pointer: Value, count: Value) -> Value:
        return self.code.at(pointer, count, I8)
