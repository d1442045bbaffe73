"""The lanes layout: four lanes of a warp share a unit, and a block has one, two or four rows; products in float32.

A product of the warp's tensor cores has eight rows, and float32 takes three of them. Where rows are few that is mostly
padding, and plain multiplications are faster, and exact: each lane holds a fourth of its unit's weights, multiplies it
with all rows of the block, and the four give each other what they have, so that each has the sums of one row.
"""

from __future__ import annotations

from cellwise.backends.cuda.layout import Form, Layout, loads_of, words_of
from cellwise.backends.cuda.products import Product
from cellwise.backends.cuda.solo import Solo
from cellwise.plan.program import Program

# Sums that a lane begins side by side, so that a multiplication does not wait for the one before.
_CHAINS = 4


class Lanes(Solo):
    units = 1

    def __init__(self, program: Program, form: Form, layout: Layout) -> None:
        self.shared_rows = layout.rows
        super().__init__(program, form, layout)

    def unit(self, p: str = "p") -> str:
        return "0"

    def row_of_cell(self) -> str:
        return "row0 + q" if self.layout.rows == 4 else f"q < {self.layout.rows} ? row0 + q : B"

    def weights(self, s: int, k: int) -> None:
        product = self.products[s][k]
        words, loads = words_of(product, self.form), loads_of(product, self.form, self.layout)
        self.argument(f"const u32* __restrict__ w{s}_{k}_given", "weights", str(s), str(k))
        self.line(f"float w{s}_{k}[{len(product.accumulators)}][{loads}][4];")
        with self.unrolled("m", len(product.accumulators)), self.unrolled("l", loads), self.unrolled("j", 4):
            place = f"(i64)(m * WIDTH + unit) * {words} + l * 16 + q * 4 + j"
            self.line(f"w{s}_{k}[m][l][j] = AS_FLOAT(w{s}_{k}_given[{place}]);")

    def _chains(self, product: Product) -> int:
        # By the product alone: a row has the same bits whatever rows are beside it.
        return max(1, _CHAINS // len(product.accumulators))

    def _product(self, s: int, k: int, product: Product) -> None:
        accumulators, loads = len(product.accumulators), loads_of(product, self.form, self.layout)
        at, pitch = self.places[product.buffer.name, product.columns]
        rows, chains = self.layout.rows, self._chains(product)
        self.line(f"float c{s}_{k}[{accumulators}][{chains}][{rows}] = {{}};")
        with self.unrolled("l", loads), self.unrolled("r", rows):
            where = f"{at} + (i & 1) * {rows * pitch} + r * {pitch} + l * 16 + q * 4"
            self.line(f"const Quad v = *(const Quad*)((const u32*)shared + {where});")
            with self.unrolled("j", 4), self.unrolled("m", accumulators):
                sum_ = f"c{s}_{k}[m][j % {chains}][r]"
                self.line(f"{sum_} = fmaf(w{s}_{k}[m][l][j], AS_FLOAT(v.w[j]), {sum_});")
        self.line(f"float d{s}_{k}[{accumulators}];")
        with self.unrolled("m", accumulators):
            with self.unrolled("j", chains - 1), self.unrolled("r", rows):
                self.line(f"c{s}_{k}[m][0][r] += c{s}_{k}[m][j + 1][r];")
            self.line(f"d{s}_{k}[m] = total_of_lanes<{rows}>(c{s}_{k}[m][0], q);")

    def _terms(self, s: int, a: int) -> list[str]:
        return [
            f"d{s}_{k}[{product.accumulators.index(a)}]"
            for k, product in enumerate(self.products[s])
            if a in product.accumulators
        ]

    def _share_word(self, first: str, pitch: int, word: str) -> None:
        there = "" if self.layout.rows == 4 else f"if (q < {self.layout.rows}) "
        self.each(self.cells, f"{there}((u32*)shared)[{first} + q * {pitch} + unit] = {word};")
