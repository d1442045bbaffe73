"""Products of large matrices whose sums run over many rows: gradients of weights, and of the input.

    void block_products(int64 *table)    of table[0] jobs, each the words of JOB

    out[i, k] (+)= sum over n of left[n, i] right[n, k]

A job is a block of n. Sums stay in registers for its length, a tile of `_TILE` rows by a few vectors at a time; what
they are multiplied from is brought into the order in which it is read: `left` in chunks of `CHUNK` rows, `right` in
panels as wide as a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from llvmlite import ir

from cellwise.backends.cpu.code import Value
from cellwise.backends.cpu.compile import load, object_code_by
from cellwise.backends.cpu.small_products import SmallProducts
from cellwise.backends.cpu.target import Target

# left[n, i] lies n times `left n` and i times `left i` numbers behind `left`; rows of right and out so many numbers
# apart. chunks: room for `left` in chunks, which are made anew if `fills`; 0 if it is read as it lies. panel: room for
# a panel of `right`; 0 likewise. add: to what is there.
JOB = (
    "left", "left n", "left i", "right", "right row", "n", "out", "out row", "height", "width", "add",
    "chunks", "fills", "panel",
)  # fmt: skip
CHUNK = 16  # rows of the result whose operands lie side by side
_TILE = 6  # rows of a tile of the widest panel; a chunk has two of these and one of the rest
_LEFT_OVER = 4  # rows of a tile of the last chunk, if that is not whole


def panel_vectors(target: Target) -> int:
    """Vectors of a row of a tile."""
    return target.accumulators // _TILE


class BlockProducts(SmallProducts):
    """Emits the loop for one element type."""

    def emit(self) -> ir.Module:
        b = self.b
        table, _ = self.function.args
        words = len(JOB)
        with self.loop("job", self.load_whole(table, 0)) as number:
            start = b.add(b.mul(number, self.whole(words)), self.whole(1))
            job = {
                name: self.load_whole(table, b.add(start, self.whole(place)), name.replace(" ", "_"))
                for place, name in enumerate(JOB)
            }
            self._job(job)
        b.ret_void()
        return self.module

    def _job(self, job: dict[str, Value]) -> None:
        b, lanes = self.b, self.v.lanes
        none, chunk = self.whole(0), self.whole(CHUNK)
        is_chunked = b.icmp_signed("!=", job["chunks"], none)
        with b.if_then(b.icmp_signed("!=", job["fills"], none)):
            self._fill_chunks(job)
        # How far apart chunks are, and within one rows, and the numbers of a row.
        self.by_chunk = b.select(is_chunked, b.mul(job["n"], chunk), b.mul(job["left i"], chunk))
        self.by_row = b.select(is_chunked, self.whole(1), job["left i"])
        self.by_n = b.select(is_chunked, chunk, job["left n"])
        self.left = self._pointer(b.select(is_chunked, job["chunks"], job["left"]))
        right, width = self._pointer(job["right"]), job["width"]
        vectors = panel_vectors(self.target)
        wide = b.sub(width, b.urem(width, self.whole(vectors * lanes)))
        with self.loop("k", wide, step=vectors * lanes) as k:
            self._panel(job, self.at(right, k), k, vectors, None)
        # What is left is a panel of so many vectors, the last of which may not be whole.
        rest = b.sub(width, wide)
        count = b.udiv(b.add(rest, self.whole(lanes - 1)), self.whole(lanes))
        mask = self.lanes_below(b.sub(rest, b.mul(b.sub(count, self.whole(1)), self.whole(lanes))))
        for own in range(1, vectors + 1):
            with b.if_then(b.icmp_signed("==", count, self.whole(own))):
                self._panel(job, self.at(right, wide), wide, own, mask)

    def _panel(
        self, job: dict[str, Value], source: Value, k: Value, vectors: int, mask: Value | None
    ) -> None:
        """The columns from k on, so many vectors; `mask`: which lanes of the last one there are."""
        b = self.b
        masks = [*[None] * (vectors - 1), mask]
        panel = self._pointer(job["panel"])
        is_packed = b.icmp_signed("!=", job["panel"], self.whole(0))
        with b.if_then(is_packed):
            self._fill_panel(source, job, panel, masks)
        by_n = b.select(is_packed, self.whole(vectors * self.v.lanes), job["right row"])
        self._rows(job, b.select(is_packed, panel, source), by_n, k, masks)

    def _fill_chunks(self, job: dict[str, Value]) -> None:
        """Chunks of so many rows of left, whose rows lie side by side: (chunk, n, row); the last one may be shorter."""
        b, lanes = self.b, self.v.lanes
        left, to, height = self._pointer(job["left"]), self._pointer(job["chunks"]), job["height"]
        whole = b.sub(height, b.urem(height, self.whole(CHUNK)))
        size = b.mul(job["n"], self.whole(CHUNK))
        with self.loop("n", job["n"]) as n:
            source, place = self.at(left, b.mul(n, job["left n"])), self.at(to, b.mul(n, self.whole(CHUNK)))
            with self.loop("chunk", whole, step=CHUNK) as i:
                chunk = self.at(place, b.mul(b.udiv(i, self.whole(CHUNK)), size))
                for first in range(0, CHUNK, lanes):
                    value = self.load(self.at(source, b.add(i, self.whole(first))))
                    self.store(value, self.at(chunk, self.whole(first)))
            last = self.at(place, b.mul(b.udiv(whole, self.whole(CHUNK)), size))
            with self.loop("i", height, first=whole) as i:
                number = self.load_one(self.at(source, i))
                b.store(number, self.at(last, b.sub(i, whole)), align=self.element_bytes)

    def _fill_panel(
        self, source: Value, job: dict[str, Value], panel: Value, masks: Sequence[Value | None]
    ) -> None:
        b, lanes = self.b, self.v.lanes
        with self.loop("n", job["n"]) as n:
            row = self.at(source, b.mul(n, job["right row"]))
            place = self.at(panel, b.mul(n, self.whole(len(masks) * lanes)))
            for vector, mask in enumerate(masks):
                value = self.load_some(self.at(row, self.whole(vector * lanes)), mask)
                self.store(value, self.at(place, self.whole(vector * lanes)))

    def _rows(
        self, job: dict[str, Value], right: Value, by_n: Value, k: Value, masks: Sequence[Value | None]
    ) -> None:
        """All rows of the result, for the columns of a panel from k on."""
        b, height = self.b, job["height"]
        out = self.at(self._pointer(job["out"]), k)
        whole = b.sub(height, b.urem(height, self.whole(CHUNK)))

        def tile(chunk: Value, row: Value, first: Value, rows: int) -> None:
            left = self.at(chunk, b.mul(row, self.by_row))
            place = b.add(first, row)
            outs = [self.at(out, b.mul(b.add(place, self.whole(i)), job["out row"])) for i in range(rows)]
            lefts = [self.at(left, b.mul(self.whole(i), self.by_row)) for i in range(rows)]
            self._tile(lefts, right, by_n, job["n"], outs, job["add"], masks)

        size = _tile_rows(len(masks), self.target)
        rest = CHUNK % size
        with self.loop("chunk", whole, step=CHUNK) as first:
            chunk = self.at(self.left, b.mul(b.udiv(first, self.whole(CHUNK)), self.by_chunk))
            with self.loop("tile", self.whole(CHUNK - rest), step=size) as row:
                tile(chunk, row, first, size)
            if rest:
                tile(chunk, self.whole(CHUNK - rest), first, rest)
        last = self.at(self.left, b.mul(b.udiv(whole, self.whole(CHUNK)), self.by_chunk))
        left_over = b.sub(height, whole)
        done: Value = self.whole(0)
        for rows in (_LEFT_OVER, 1):
            end = b.sub(left_over, b.urem(left_over, self.whole(rows)))
            with self.loop("tile", end, first=done, step=rows) as row:
                tile(last, row, whole, rows)
            done = end

    def _tile(
        self,
        lefts: list[Value],
        right: Value,
        by_n: Value,
        count: Value,
        outs: list[Value],
        add: Value,
        masks: Sequence[Value | None],
    ) -> None:
        b, lanes, vectors = self.b, self.v.lanes, len(masks)
        places = [self.at(out, self.whole(vector * lanes)) for out in outs for vector in range(vectors)]
        # What the sums are added to comes while they are made: rows, which need not begin with a line of the cache.
        for place in [*places, *[self.at(out, self.whole(vectors * lanes - 1)) for out in outs]]:
            self.prefetch(place, write=True)
        sums = [self.v.number(0.0)] * len(places)
        with self.summing("n", count, sums) as (n, running, following):
            at_right, offset = self.at(right, b.mul(n, by_n)), b.mul(n, self.by_n)
            values = [
                self.load_some(self.at(at_right, self.whole(vector * lanes)), mask)
                for vector, mask in enumerate(masks)
            ]
            for i, left in enumerate(lefts):
                number = self.v.splat(self.load_one(self.at(left, offset)))
                following += [
                    self.v.fma(number, value, running[i * vectors + v]) for v, value in enumerate(values)
                ]
        own_masks = [*masks] * len(outs)
        sums = self.changed_if(
            b.icmp_signed("!=", add, self.whole(0)),
            sums,
            lambda values: [
                b.fadd(self.load_some(place, mask), value)
                for place, mask, value in zip(places, own_masks, values, strict=True)
            ],
        )
        for value, place, mask in zip(sums, places, own_masks, strict=True):
            self.store_some(value, place, mask)


def _tile_rows(vectors: int, target: Target) -> int:
    """Rows of a tile of so many vectors: those of narrow ones fill a chunk."""
    if vectors == panel_vectors(target):
        return _TILE
    return max(
        rows for rows in range(1, CHUNK + 1) if CHUNK % rows == 0 and rows * vectors <= target.accumulators
    )


MADE_BY = tuple(
    Path(__file__).with_name(name)
    for name in ("block_products.py", "small_products.py", "code.py", "target.py", "vectors.py")
)


@cache
def block_products(element_bytes: int, target: Target) -> Callable[[int, int], None]:
    """The compiled loop."""
    name = f"block_products_f{8 * element_bytes}"
    code = object_code_by(lambda: BlockProducts(name, element_bytes, target).emit(), name, MADE_BY, target)
    return load(name, code)
