"""Products of weights as they lie, as a routine of its own that all kernels of an element type share.

    void in_place(int64 *call, int64 pair)

A packed weight is read, written and read again. This reads the rows of weights where they lie, k by k for a row of the
operand that lies as they do:

    sums[unit, lane] += weight[unit, k + lane] operand[row, k + lane]

and at the end, when all terms are in it, adds up the lanes of each sum. That takes about two instructions a sum, which
is why packing wins where many rows meet a weight. A block has as many sums as a vector has lanes, of several units and
of one, two or four rows, and they become one vector. Each is added up in the same order whatever its place, so that a
row has the same bits beside any others.

For one row the limit is how fast weights come: of 384 KB in the second cache 57 bytes a cycle (Zen 5, which can do 64),
as fast as the routine of packed weights. Four rows run at 90 % of the multiply-adds that the core can do. A row of
weights is read some vectors at a time, since lines that follow each other come faster: 2.1 us in place of 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from llvmlite import ir

from cellwise.backends.cpu.code import I64, POINTER, Code, Value
from cellwise.backends.cpu.compile import object_code_by
from cellwise.backends.cpu.products import operand_at
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES

# rows, stride, room, terms as in `products`; tiles: how many there are; sums: accumulators of a tile. width: vectors of
# a panel of `room`. by sum, by tile: how far the next one's vector is among those of a pair. units: rows of a weight
# that a gate has, at least a vector of them. Then for each accumulator where `BIASES` of it begin, or 0.
CALL = ("rows", "stride", "room", "terms", "tiles", "sums", "width", "by sum", "by tile", "units")
BIASES = 2
# As in `products`, and then for each accumulator where the row of its first unit begins.
TERM = ("operand", "first", "limit", "row", "length")
_POINTERS = frozenset({"room", "operand", "first"})
_FOUR = 4


def routine_name(element_bytes: int, target: Target) -> str:
    return f"in_place_v{target.lanes(element_bytes)}f{8 * element_bytes}"


class InPlaceProducts(Code):
    """Emits the routine: void in_place(int64 *call, int64 pair)."""

    kinds = (POINTER, I64)

    def __init__(self, element_bytes: int, target: Target, module: ir.Module | None = None) -> None:
        super().__init__(routine_name(element_bytes, target), element_bytes, target, module)

    def emit(self) -> ir.Module:
        b, whole = self.b, self.whole
        call, self.pair = self.function.args
        self.given = self.named(call, CALL, _POINTERS)
        self.biases = self.at(call, whole(len(CALL)), I64)
        self.terms = self.at(self.biases, b.mul(self.given["sums"], whole(BIASES)), I64)
        self.words = b.add(self.given["sums"], whole(len(TERM)))  # of a term
        # For units that are not where they belong, and as many zeros.
        self.moved = b.alloca(POINTER, 2 * self.v.lanes * self.element_bytes // 8, name="moved")
        rows = self.given["rows"]
        first = b.mul(self.pair, whole(TILES))
        left = b.sub(self.given["tiles"], first)
        here = b.select(b.icmp_signed("<", left, whole(TILES)), left, whole(TILES))
        for size in (1, 2, _FOUR):
            is_so = b.icmp_signed("==", rows, whole(size))
            if size == _FOUR:
                is_so = b.icmp_signed(">", rows, whole(2))
            with (
                b.if_then(is_so),
                self.loop(f"sum{size}", self.given["sums"]) as number,
                self.loop(f"tile{size}", here) as u,
            ):
                self._tile(number, u, b.add(first, u), size)
        b.ret_void()
        return self.module

    def _tile(self, number: Value, u: Value, tile: Value, size: int) -> None:
        """The sums of an accumulator for a tile of units, of blocks of so many rows."""
        b, whole, given, lanes = self.b, self.whole, self.given, self.v.lanes
        place = b.add(b.mul(number, given["by sum"]), b.mul(u, given["by tile"]))
        panel, vector = b.udiv(place, given["width"]), b.urem(place, given["width"])
        room = b.add(b.mul(b.mul(panel, given["stride"]), given["width"]), vector)
        room = self.at(given["room"], b.mul(room, whole(lanes)))
        units, first = lanes // size, b.mul(tile, whole(lanes))
        left = b.sub(given["units"], first)
        with (
            b.if_then(b.icmp_signed("<", left, whole(lanes)), likely=False),
            self.loop(f"none{size}", given["rows"]) as row,
        ):
            # No number of a padded unit is any.
            self.store(self.v.number(0.0), self.at(room, b.mul(b.mul(row, given["width"]), whole(lanes))))
        end = b.select(b.icmp_signed("<", left, whole(lanes)), left, whole(lanes))
        with (
            self.loop(f"units{size}", end, step=units) as unit,
            self.loop(f"rows{size}", given["rows"], step=size) as row,
        ):
            # The last units are read as a whole block, too, which begins before them.
            last = b.sub(left, whole(units))
            own = b.select(b.icmp_signed("<", unit, last), unit, last)
            behind, own = b.sub(unit, own), b.add(first, own)
            sums = self._sums(number, own, units, row, size)
            bias = self._bias(number, own, units)
            self._put(sums, bias, self.at(room, unit), units, row, size, behind)

    def _bias(self, number: Value, unit: Value, units: int) -> Value:
        """The biases of some units of an accumulator, added up."""
        b, some = self.b, ir.VectorType(self.v.element, units)
        found = [ir.Constant(some, [ir.Constant(self.v.element, 0.0)] * units)]
        for own in range(BIASES):
            word = b.add(b.mul(number, self.whole(BIASES)), self.whole(own))
            start = self.load_whole(self.biases, word)
            there = self.at(b.inttoptr(start, POINTER), unit)

            def added(values: list[Value], there: Value = there) -> list[Value]:
                return [b.fadd(values[0], b.load(there, typ=some, align=self.element_bytes))]

            found = self.changed_if(b.icmp_signed("!=", start, self.whole(0)), found, added)
        return found[0]

    def _sums(self, number: Value, unit: Value, units: int, row: Value, rows: int) -> Value:
        """A vector of the sums of some units, row by row."""
        b, whole, lanes = self.b, self.whole, self.v.lanes
        sums: list[Value] = [self.v.number(0.0)] * lanes
        with self.summing("term", self.given["terms"], sums) as (term, running, following):
            table = self.at(self.terms, b.mul(term, self.words), I64)
            words = self.named(table, TERM, _POINTERS)
            length = words["length"]
            weight = self.at(table, b.add(number, whole(len(TERM))), POINTER)
            weight = b.load(weight, typ=POINTER)
            weight = self.at(weight, b.mul(unit, length))
            # Rows of weights by fours, which an address reaches from one of them.
            step, thrice = b.mul(length, whole(_FOUR)), b.mul(length, whole(3))
            starts = [weight]
            for _ in range(_FOUR, units, _FOUR):
                starts.append(self.at(starts[-1], step))
            away = [whole(0), length, b.add(length, length), thrice]
            operands = [self._operand(words, row, own) for own in range(rows)]

            def add(
                k: Value, sums: list[Value], load: Callable[[Value], Value], vectors: int = 1
            ) -> list[Value]:
                """The sums with the products of some vectors of each row, one row of weights after the other."""
                places = [whole(vector * lanes) for vector in range(vectors)]
                numbers = [[load(self.at(self.at(each, k), place)) for place in places] for each in operands]
                at_k = [self.at(start, k) for start in starts]
                added = [*sums]
                for own in range(units):
                    start = self.at(at_k[own // _FOUR], away[own % _FOUR])
                    for vector, place in enumerate(places):
                        weight = load(self.at(start, place))
                        for number in range(rows):
                            sum_ = own + number * units
                            added[sum_] = self.v.fma(weight, numbers[number][vector], added[sum_])
                return added

            added, done = [*running], whole(0)
            # Several numbers of a row of weights in turn, as they lie in memory.
            for vectors in (4 if self.target.registers > 16 else 2, 1):
                end = b.sub(length, b.urem(length, whole(vectors * lanes)))
                with self.summing("k", end, added, first=done, step=vectors * lanes) as (k, before, after):
                    after += add(k, before, self.load, vectors)
                done = end
            left = b.sub(length, done)
            mask = self.lanes_below(left)
            following += self.changed_if(
                b.icmp_signed(">", left, whole(0)),
                added,
                lambda values: add(done, values, lambda place: self.load_some(place, mask)),
            )
        return self._total(sums)

    def _operand(self, words: dict[str, Value], row: Value, own: int) -> Value:
        """Where a row of an operand begins; behind the last one, the last one."""
        b = self.b
        this, last = b.add(row, self.whole(own)), b.sub(self.given["rows"], self.whole(1))
        this = b.select(b.icmp_signed("<", this, last), this, last)
        return operand_at(self, words, this)

    def _total(self, sums: Sequence[Value]) -> Value:
        """A vector that has in each lane all lanes of one of the sums: each round adds those that differ in a digit."""
        lanes, digit, found = self.v.lanes, 1, [*sums]
        index = ir.IntType(32)
        while digit < lanes:
            own = [j + lanes - digit if j & digit else j for j in range(lanes)]
            other = [j + lanes if j & digit else j + digit for j in range(lanes)]
            masks = [ir.Constant(ir.VectorType(index, lanes), places) for places in (own, other)]
            found = [
                self.b.fadd(*(self.b.shuffle_vector(low, high, mask) for mask in masks))
                for low, high in zip(found[::2], found[1::2], strict=True)
            ]
            digit *= 2
        return found[0]

    def _put(
        self, sums: Value, bias: Value, room: Value, units: int, row: Value, rows: int, behind: Value
    ) -> None:
        """Put the sums of each row into its place, with the biases of their units, of which the first `behind` have
        theirs already.
        """
        b, lanes = self.b, self.v.lanes
        index = ir.IntType(32)
        width = b.mul(self.given["width"], self.whole(lanes))
        for own in range(rows):
            this = b.add(row, self.whole(own))
            places = ir.Constant(ir.VectorType(index, units), [own * units + place for place in range(units)])
            part = sums if rows == 1 else b.shuffle_vector(sums, sums, places)
            with b.if_then(b.icmp_signed("<", this, self.given["rows"])):
                (added,) = self.changed_if(
                    b.icmp_signed(">", behind, self.whole(0)),
                    [b.fadd(part, bias)],
                    lambda values: [self._moved(values[0], behind, units)],
                )
                b.store(added, self.at(room, b.mul(this, width)), align=self.element_bytes)

    def _moved(self, values: Value, behind: Value, units: int) -> Value:
        """Some units from one on, and zeros."""
        b, size = self.b, self.element_bytes
        zeros = ir.Constant(values.type, [ir.Constant(self.v.element, 0.0)] * units)
        for number, each in enumerate((values, zeros)):
            b.store(each, self.at(self.moved, self.whole(number * units)), align=size)
        return b.load(self.at(self.moved, behind), typ=values.type, align=size)


# All files whose text the routine depends on.
_MADE_BY = tuple(
    Path(__file__).with_name(name)
    for name in ("in_place_products.py", "products.py", "code.py", "target.py", "tiles.py", "vectors.py")
)


@cache
def in_place_routine(element_bytes: int, target: Target) -> bytes:
    """The object code of the routine."""
    return object_code_by(
        lambda: InPlaceProducts(element_bytes, target).emit(),
        routine_name(element_bytes, target),
        _MADE_BY,
        target,
    )
