"""Products of transposed weights as they lie, as a routine of its own that all kernels of an element type share.

    void transposed(int64 *call, int64 unused)

What a gate's gradient gives to a state is a row of the gate's weights, whose numbers lie side by side:

    sums[row, unit] += operand[row, k] weight[k, unit]

A packed weight of the backward pass is the same numbers in the same order, in panels of a few vectors. So nothing has
to be packed for it; only k is followed by the next one farther on.

A run of so many k is summed in registers, for a block of rows by some vectors of units, and then added to `room`; a
run is as long as in `products`. A sum is added up in the same order in any block, so that a row has the same bits
beside any others. One row takes many vectors, since lines that follow each other come faster.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from llvmlite import ir

from cellwise.backends.cpu.code import I64, POINTER, Code, Value
from cellwise.backends.cpu.compile import object_code_by
from cellwise.backends.cpu.products import even_blocks, operand_at
from cellwise.backends.cpu.target import Target

# rows: how many; units: from the first one to the end; room (row, unit): where sums go, with rows so far apart.
CALL = ("rows", "first unit", "end", "room", "room row", "terms")
# As in `products`; and from one k to the next so many weights.
TERM = ("operand", "first", "limit", "row", "length", "run", "weights", "weight row")
# Rows of a block, and with sixteen registers.
_MOST_ROWS, _MOST_OF_FEW_REGISTERS = 6, 5
# Vectors of units that are summed at once. One row reads whole rows of 192 and 384 numbers in 0.6 to 0.8 of the time
# that it takes in two pieces.
_WIDTHS = (24, 16, 12, 8, 4, 2)
_MANY = 3  # rows, which take them by the first of these that fits, and others one by one
_POINTERS = frozenset({"room", "operand", "first", "weights"})


def routine_name(element_bytes: int, target: Target) -> str:
    return f"transposed_v{target.lanes(element_bytes)}f{8 * element_bytes}"


class TransposedProducts(Code):
    """Emits the routine: void transposed(int64 *call, int64 unused)."""

    kinds = (POINTER, I64)

    def __init__(self, element_bytes: int, target: Target, module: ir.Module | None = None) -> None:
        super().__init__(routine_name(element_bytes, target), element_bytes, target, module)

    def emit(self) -> ir.Module:
        b, whole = self.b, self.whole
        call, _ = self.function.args
        self.given = self.named(call, CALL, _POINTERS)
        terms, rows = self.at(call, whole(len(CALL)), I64), self.given["rows"]
        most = _MOST_ROWS if self.target.registers > 16 else _MOST_OF_FEW_REGISTERS
        _, self.ends = even_blocks(self, rows, 1, most)
        with self.loop("term", self.given["terms"]) as term:
            words = self.named(self.at(terms, b.mul(term, whole(len(TERM))), I64), TERM, _POINTERS)
            with self.loop("run", words["length"], step=words["run"]) as start:
                end = b.add(start, words["run"])
                end = b.select(b.icmp_signed("<", end, words["length"]), end, words["length"])
                is_later = b.icmp_signed("!=", b.add(term, start), whole(0))
                self._run(words, (start, end), is_later)
        b.ret_void()
        return self.module

    def _run(self, words: dict[str, Value], run: tuple[Value, Value], is_later: Value) -> None:
        """What a run of k gives to the sums of all rows and units."""
        for size, first, end in self.ends:
            with self.loop(f"rows{size}", end, first=first, step=size) as row:
                self._rows(words, run, is_later, row, size)

    def _rows(
        self, words: dict[str, Value], run: tuple[Value, Value], is_later: Value, row: Value, rows: int
    ) -> None:
        """The same for a block of rows."""
        b, whole, lanes = self.b, self.whole, self.v.lanes
        done, last = self.given["first unit"], self.given["end"]
        for vectors in self._widths(rows):
            step = vectors * lanes
            here = b.sub(last, b.urem(b.sub(last, done), whole(step)))
            with self.loop(f"units{vectors}", here, first=done, step=step) as unit:
                self._block(words, run, is_later, unit, vectors, row, rows)
            done = here
        with self.loop("units", last, first=done, step=lanes) as unit:
            self._block(words, run, is_later, unit, 1, row, rows, b.sub(last, unit))

    def _widths(self, rows: int) -> tuple[int, ...]:
        """How many vectors of units so many rows take at once: most of them by the first number."""
        most = self.target.accumulators
        if rows > 1:  # beside the sums a weight, and of each row a number of its operand
            most = (self.target.registers - 1 - rows) // rows
        fitting = tuple(each for each in _WIDTHS if each <= most)
        return fitting if rows < _MANY else fitting[:1]

    def _block(
        self,
        words: dict[str, Value],
        run: tuple[Value, Value],
        is_later: Value,
        unit: Value,
        vectors: int,
        row: Value,
        rows: int,
        left: Value | None = None,
    ) -> None:
        """The same for some vectors of units, of the last of which there may be so many numbers `left`."""
        b, whole, lanes = self.b, self.whole, self.v.lanes
        operands = [operand_at(self, words, b.add(row, whole(own))) for own in range(rows)]
        weights = self.at(words["weights"], unit)
        mask = None if left is None else self.lanes_below(left)
        sums: list[Value] = [self.v.number(0.0)] * (rows * vectors)
        start, end = run
        with self.summing("k", end, sums, first=start) as (k, running, following):
            at_k = self.at(weights, b.mul(k, words["weight row"]))
            numbers = [self.v.splat(self.load_one(self.at(operand, k))) for operand in operands]
            # Vector by vector, so that one of weights is in a register at a time.
            for vector in range(vectors):
                place = self.at(at_k, whole(vector * lanes))
                value = self.load_some(place, mask)
                for own, number in enumerate(numbers):
                    following.append(self.v.fma(number, value, running[vector * rows + own]))
        rooms = [
            self.at(
                self.given["room"],
                b.add(
                    b.mul(b.add(row, whole(own)), self.given["room row"]), b.add(unit, whole(vector * lanes))
                ),
            )
            for vector in range(vectors)
            for own in range(rows)
        ]
        sums = self.changed_if(
            is_later,
            sums,
            lambda values: [b.fadd(self.load(room), each) for room, each in zip(rooms, values, strict=True)],
        )
        for room, value in zip(rooms, sums, strict=True):
            self.store(value, room)


# All files whose text the routine depends on.
_MADE_BY = tuple(
    Path(__file__).with_name(name)
    for name in ("transposed_products.py", "products.py", "code.py", "target.py", "vectors.py")
)


@cache
def transposed_routine(element_bytes: int, target: Target) -> bytes:
    """The object code of the routine."""
    return object_code_by(
        lambda: TransposedProducts(element_bytes, target).emit(),
        routine_name(element_bytes, target),
        _MADE_BY,
        target,
    )
