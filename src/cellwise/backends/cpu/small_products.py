"""Products of small matrices, and what else a small call has to do between kernels: one compiled loop over jobs.

A call of MKL takes longer to begin than a product over a few dozen rows takes; and a call of anything from Python costs
as much as a step of a small layer. So a call that computes little hands over all that is left to do as a table:

    void small_products(int64 *table)    of table[0] jobs, and so many of the other kinds

    job     out[i, k] (+)= sum over n of left[n, i] right[n, k]
    narrow  out[i] (+)= sums[i], from float64
    move    a piece of memory to another place
    total   out[0] = sum over i of sums[i], from float64

No operand is packed: both are read along their rows, as they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from llvmlite import ir

from cellwise.backends.cpu.code import I64, Code, Value
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target

# left and right (n, ...) with rows so many numbers apart; out (i, k) likewise; `add`: to what is there.
PRODUCT = ("left", "left row", "right", "right row", "n", "out", "out row", "i", "k", "add")
NARROW = ("out", "sums", "i", "add")
MOVE = ("to", "from", "words")
TOTAL = ("out", "sums", "i")
KINDS = (PRODUCT, NARROW, MOVE, TOTAL)  # of which a table first says how many there are
WORD = 8  # bytes that are moved at once, at the least
_MOVED = 8  # words of a vector
_ROWS = 6  # of the result, in registers
# Where the right operand has no more bytes the result is written in the order of memory, which for one row of operands
# takes most of the time.
_NEAR = 2**14


class SmallProducts(Code):
    """Emits the loop for one element type."""

    def emit(self) -> ir.Module:
        b = self.b
        table, _ = self.function.args
        kinds: list[tuple[tuple[str, ...], Callable[..., None]]] = [
            (PRODUCT, self._product),
            (NARROW, self._narrow),
            (MOVE, self._move),
            (TOTAL, self._total),
        ]
        counts = [self.load_whole(table, place) for place in range(len(kinds))]
        at: Value = self.whole(len(counts))
        for (names, do), count in zip(kinds, counts, strict=True):
            with self.loop("job", count) as number:
                place = b.add(at, b.mul(number, self.whole(len(names))))
                words = [b.add(place, self.whole(i)) for i in range(len(names))]
                do(*[b.load(self.at(table, word, I64), typ=I64) for word in words])
            at = b.add(at, b.mul(count, self.whole(len(names))))
        b.ret_void()
        return self.module

    def _pointer(self, address: Value) -> Value:
        return self.b.inttoptr(address, ir.PointerType())

    def _product(
        self,
        left: Value,
        left_row: Value,
        right: Value,
        right_row: Value,
        n: Value,
        out: Value,
        out_row: Value,
        height: Value,
        width: Value,
        add: Value,
    ) -> None:
        """Blocks of the result, of `_ROWS` rows and as many vectors as registers hold, then what is left over."""
        b, lanes = self.b, self.v.lanes
        left, right, out = map(self._pointer, (left, right, out))
        vectors = self.target.accumulators // _ROWS
        wide = b.sub(width, b.urem(width, self.whole(vectors * lanes)))
        high = b.sub(height, b.urem(height, self.whole(_ROWS)))

        def block(i: Value, rows: int, k: Value, vectors: int, mask: Value | None) -> None:
            place = self.at(out, b.add(b.mul(i, out_row), k))
            outs = [self.at(place, b.mul(self.whole(row), out_row)) for row in range(rows)]
            sides = (self.at(left, i), left_row, self.at(right, k), right_row, n)
            self._block(*sides, outs, vectors, add, mask)

        def columns() -> Iterator[tuple[Value, int, Value | None]]:
            with self.loop("k", wide, step=vectors * lanes) as k:
                yield k, vectors, None
            with self.loop("k", width, first=wide, step=lanes) as k:
                yield k, 1, self.lanes_below(b.sub(width, k))

        def rows() -> Iterator[tuple[Value, int]]:
            with self.loop("i", high, step=_ROWS) as i:
                yield i, _ROWS
            with self.loop("i", height, first=high) as i:
                yield i, 1

        read = b.mul(b.mul(n, width), self.whole(self.element_bytes))
        with b.if_else(b.icmp_signed("<=", read, self.whole(_NEAR))) as (is_near, is_far):
            with is_near:
                for i, count in rows():
                    for k, some, mask in columns():
                        block(i, count, k, some, mask)
            with is_far:
                for k, some, mask in columns():
                    for i, count in rows():
                        block(i, count, k, some, mask)

    def _block(
        self,
        left: Value,
        left_row: Value,
        right: Value,
        right_row: Value,
        n: Value,
        outs: list[Value],
        vectors: int,
        add: Value,
        mask: Value | None,
    ) -> None:
        b, lanes = self.b, self.v.lanes
        places = [self.at(out, self.whole(vector * lanes)) for out in outs for vector in range(vectors)]
        sums = self.changed_if(
            b.icmp_signed("!=", add, self.whole(0)),
            [self.v.number(0.0)] * len(places),
            lambda _: [self.load_some(place, mask) for place in places],
        )
        with self.summing("n", n, sums) as (row, running, following):
            at_left, at_right = (
                self.at(each, b.mul(row, stride)) for each, stride in ((left, left_row), (right, right_row))
            )
            values = [self.load_some(self.at(at_right, self.whole(v * lanes)), mask) for v in range(vectors)]
            for i in range(len(outs)):
                number = self.v.splat(self.load_one(self.at(at_left, self.whole(i))))
                following += [
                    self.v.fma(number, value, running[i * vectors + v]) for v, value in enumerate(values)
                ]
        for value, place in zip(sums, places, strict=True):
            self.store_some(value, place, mask)

    def _narrow(self, out: Value, sums: Value, count: Value, add: Value) -> None:
        b = self.b
        out, sums = self._pointer(out), self._pointer(sums)
        with self.loop("i", count) as i:
            value = b.load(self.at(sums, i, ir.DoubleType()), typ=ir.DoubleType())
            value = value if self.v.double else b.fptrunc(value, self.v.element)
            place = self.at(out, i)
            (value,) = self.changed_if(
                b.icmp_signed("!=", add, self.whole(0)),
                [value],
                lambda values: [b.fadd(self.load_one(place), values[0])],
            )
            self.store(value, place)

    def _total(self, out: Value, sums: Value, count: Value) -> None:
        b, double = self.b, ir.DoubleType()
        sums, totals = self._pointer(sums), [ir.Constant(double, 0.0)]
        with self.summing("i", count, totals) as (i, (running,), following):
            following.append(b.fadd(running, b.load(self.at(sums, i, double), typ=double)))
        value = totals[0] if self.v.double else b.fptrunc(totals[0], self.v.element)
        b.store(value, self._pointer(out), align=self.element_bytes)

    def _move(self, to: Value, source: Value, words: Value) -> None:
        b, kind = self.b, ir.VectorType(I64, _MOVED)
        to, source = self._pointer(to), self._pointer(source)
        whole = b.sub(words, b.urem(words, self.whole(_MOVED)))
        for end, first, step, moved in ((whole, None, _MOVED, kind), (words, whole, 1, I64)):
            with self.loop("word", end, first=first, step=step) as word:
                value = b.load(self.at(source, word, I64), typ=moved, align=WORD)
                b.store(value, self.at(to, word, I64), align=WORD)


def emit_small_products(element_bytes: int, target: Target) -> ir.Module:
    """The loop over jobs for an element type."""
    return SmallProducts("small_products", element_bytes, target).emit()


@cache
def small_products(element_bytes: int, target: Target) -> Callable[[int, int], None]:
    """The compiled loop."""
    return load("small_products", object_code(emit_small_products(element_bytes, target), target))
