"""The products of a stage for a pair of tiles, as a routine of its own that all kernels of an element type share.

    void products(int64 *call, int64 pair)

For every row, each term adds to the sums of a group the product of a row of its operand with its packed weights. The
biases come last: a sum that begins with a large number rounds all that follows as coarsely. `call` says where all that
is: the words of `CALL`, then for each term those of `TERM`.

Sums are held in registers, for a block of rows and of panels at a time, through all terms: the loop over a term's
numbers is written once for a block, whatever is multiplied with whatever. No cell is in this code, so that a machine
compiles it once.

A rounding error grows with the number of additions in a row. So a term is cut into runs, and before a sum would have
more than `LONGEST` of them it is put away in `room`, and begins again at zero (Higham 1993, "The accuracy of floating
point summation": blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from pathlib import Path

from llvmlite import ir

from cellwise.backends.cpu.code import I64, POINTER, Code, Value
from cellwise.backends.cpu.compile import object_code_by
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import most_rows

# rows: how many there are now; stride: how many a panel of `room` has. Weights and biases begin at the first pair.
# panels: those of a pair, of which the pair `last` wants only the first `of last`.
#   biases (pair, panel, vector, lane)    room (panel, row, vector, lane), which receives the sums
CALL = ("rows", "stride", "panels", "last", "of last", "room", "biases", "terms")
# Row number i of an operand lies i times `row` numbers behind `operand`, from number `limit` on behind `first`.
# run: how many of its numbers are added to a sum at once, `run_of` its length.
#   weights (pair, panel, k, vector, lane), k < length
TERM = ("operand", "first", "limit", "row", "length", "run", "weights")
_POINTERS = frozenset({"room", "biases", "operand", "first", "weights"})

# Multiply-adds that a core must have under way to be busy: two a cycle, each of four cycles.
_BUSY = 8
# Numbers of an operand that a round of the loop takes; the loop's own work shows when two threads share a core.
_UNROLLED = 4
FEW_ROWS = 2  # so few take several panels at once
LINE = 64  # bytes of a line of the cache
# Additions to one sum before it is put away.
LONGEST = 160


def routine_name(width: int, element_bytes: int, target: Target) -> str:
    """Of the routine for panels of so many vectors."""
    return f"products_{width}v{target.lanes(element_bytes)}f{8 * element_bytes}"


def run_of(code: Code, length: Value) -> Value:
    """How many numbers of a term are added at once: it is cut into as few runs as can be, about equal."""
    b = code.b
    count = b.udiv(b.add(length, code.whole(LONGEST - 1)), code.whole(LONGEST), name="runs")
    # At least one, so that there is no division by zero; of whole rounds of the loop.
    count = b.select(b.icmp_signed(">", count, code.whole(0)), count, code.whole(1))
    rounds = b.udiv(
        b.sub(b.add(length, b.mul(count, code.whole(_BUSY))), code.whole(1)), b.mul(count, code.whole(_BUSY))
    )
    return b.mul(rounds, code.whole(_BUSY), name="run")


def even_blocks(
    code: Code, rows: Value, fewest: int, most: int
) -> tuple[Value, list[tuple[int, Value, Value]]]:
    """As few blocks of rows as can be, about equal, the smaller ones first: how many rows a smaller one has, and of the
    blocks of each size that there may be the size, the first row and the end.
    """
    b, whole = code.b, code.whole
    count = b.udiv(b.add(rows, whole(most - 1)), whole(most), name="blocks")
    # At least one, so that there is no division by zero.
    small = b.udiv(rows, b.select(b.icmp_signed(">", count, whole(0)), count, whole(1)), name="small")
    larger = b.sub(rows, b.mul(small, count), name="larger")
    found = []
    done: Value = whole(0)
    for size in range(fewest, most + 1):
        is_small, is_larger = (b.icmp_signed("==", small, whole(each)) for each in (size, size - 1))
        here = b.select(is_small, b.sub(count, larger), b.select(is_larger, larger, whole(0)))
        end = b.add(done, b.mul(here, whole(size)), name=f"end{size}")
        found.append((size, done, end))
        done = end
    return small, found


def operand_at(code: Code, words: dict[str, Value], row: Value, kind: ir.Type | None = None) -> Value:
    """Where a row of a term's operand begins; `kind`: of its numbers, if they are not what is computed with."""
    b = code.b
    base = b.select(b.icmp_signed("<", row, words["limit"]), words["operand"], words["first"])
    return code.at(base, b.mul(row, words["row"]), kind)


class Products(Code):
    """Emits the routine for panels of `width` vectors, into `module` if one is given."""

    kinds = (POINTER, I64)

    def __init__(
        self,
        width: int,
        element_bytes: int,
        target: Target,
        module: ir.Module | None = None,
        name: str | None = None,
    ) -> None:
        name = name or routine_name(width, element_bytes, target)
        super().__init__(name, element_bytes, target, module)
        self.width = width

    def emit(self) -> ir.Module:
        b = self.b
        call, pair = self.function.args
        self.descriptor = self.named(call, CALL, _POINTERS)
        self.terms = self.at(call, self.whole(len(CALL)), I64)
        self.before = b.mul(pair, self.descriptor["panels"], name="panels_before")
        is_last = b.icmp_signed("==", pair, self.descriptor["last"])
        self.panels = b.select(
            is_last, self.descriptor["of last"], self.descriptor["panels"], name="panels_here"
        )
        self._rows(self.descriptor["rows"])
        b.ret_void()
        return self.module

    def _rows(self, rows: Value) -> None:
        """The sums of all rows and panels of the pair."""
        b = self.b
        for size in range(1, FEW_ROWS + 1):
            with b.if_then(b.icmp_signed("==", rows, self.whole(size))):
                self._few(size)
        with b.if_then(b.icmp_signed(">", rows, self.whole(FEW_ROWS))):
            self._many(rows)

    def _few(self, rows: int) -> None:
        """Few rows take several panels at once, so that an operand's number is read for more than one."""
        b, panels = self.b, self.panels
        done: Value = self.whole(0)
        for at_once in (4, 2, 1):
            if at_once == 1 or rows * at_once * self.width <= self.target.accumulators:
                b.comment(f"{rows} by {at_once * self.width} vectors")
                end = b.sub(panels, b.urem(panels, self.whole(at_once)))
                with self.loop("panel", end, first=done, step=at_once) as panel:
                    self._block(self.whole(0), rows, panel, at_once)
                done = end

    def _many(self, rows: Value) -> None:
        """The rows in as few blocks as can be, about equal: below eight sums a core waits for its own results."""
        b = self.b
        most = most_rows(self.width, self.target)
        assert (most + 1) // 2 > FEW_ROWS, "blocks of one more row than fit would be of too few"
        small, ranges = even_blocks(self, rows, FEW_ROWS + 1, most)
        with self.loop("panel", self.panels) as panel:
            for size, first, end in ranges:
                b.comment(f"{size} by {self.width} vectors")
                with self.loop(f"rows{size}", end, first=first, step=size) as row:
                    self._block(row, size, panel, 1, b.udiv(row, small))

    def _block(self, row: Value, rows: int, panel: Value, panels: int, block: Value | None = None) -> None:
        """The sums of so many rows by so many panels, from these on; `block` counts those of a panel."""
        b, width, lanes = self.b, self.width, self.v.lanes
        first = b.add(self.before, panel)
        rooms = []  # of the first row in each panel
        for number in range(panels):
            place = b.add(b.mul(b.add(panel, self.whole(number)), self.descriptor["stride"]), row)
            rooms.append(self.at(self.descriptor["room"], b.mul(place, self.whole(width * lanes))))
        # Where these are few, several sets of them, so that one need not wait for its last addition.
        count = rows * panels * width
        many = [self.v.number(0.0)] * (count * -(-_BUSY // count))
        # Beside them how many additions they have had, and whether some are put away.
        carried = [*many, self.whole(0), self.whole(0)]
        with self.summing("term", self.descriptor["terms"], carried) as (term, running, following):
            following += self._term(term, row, rows, first, rooms, running, block)
        *many, _, away = carried
        start = b.mul(first, self.whole(width * lanes))
        biases = [
            self.at(self.descriptor["biases"], b.add(start, self.whole(i * lanes)))
            for i in range(panels * width)
        ]
        self._put(rooms, rows, many, away, list(map(self.load, biases)))

    def _put(
        self, rooms: list[Value], rows: int, many: list[Value], away: Value, biases: Sequence[Value] = ()
    ) -> None:
        """Put the sums away, of all sets, with the biases; they are added to those that are `away` already."""
        b, width, lanes = self.b, self.width, self.v.lanes
        count = len(rooms) * width * rows
        sums = [reduce(b.fadd, many[place::count]) for place in range(count)]

        def place(number: int) -> Value:
            vector, own = divmod(number, rows)
            return self.at(rooms[vector // width], self.whole((own * width + vector % width) * lanes))

        def added(values: list[Value]) -> list[Value]:
            return [b.fadd(self.load(place(number)), value) for number, value in enumerate(values)]

        sums = self.changed_if(b.icmp_signed("!=", away, self.whole(0)), sums, added)
        for number, value in enumerate(sums):
            self.store(b.fadd(value, biases[number // rows]) if biases else value, place(number))

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
        """The sums with one operand's products, run by run."""
        b = self.b
        words = self.term_words(term)
        length = words["length"]
        operands = self.operands(words, row, rows)
        weights = self.panel_weights(words, first, len(rooms), length)
        ahead = None if block is None else self._ahead(weights[0], length, block)
        carried = [*carried]
        with self.summing("run", length, carried, step=words["run"]) as (start, running, following):
            end = b.add(start, words["run"])
            end = b.select(b.icmp_signed("<", end, length), end, length)
            following += self._run(start, end, operands, weights, rooms, running, ahead)
        return carried

    def term_words(self, term: Value) -> dict[str, Value]:
        """The words of the descriptor about a term."""
        return self.named(self.at(self.terms, self.b.mul(term, self.whole(len(TERM))), I64), TERM, _POINTERS)

    def operands(
        self, words: dict[str, Value], row: Value, rows: int, kind: ir.Type | None = None
    ) -> list[Value]:
        """Where the operands of some rows begin; `kind`: of a number of theirs, if it is not what is computed with."""
        return [operand_at(self, words, self.b.add(row, self.whole(own)), kind) for own in range(rows)]

    def panel_weights(self, words: dict[str, Value], first: Value, count: int, length: Value) -> list[Value]:
        """Where the weights of some panels begin; `length`: how many vectors a unit's lanes have in each."""
        b = self.b
        size = b.mul(length, self.whole(self.width * self.v.lanes))
        return [
            self.at(words["weights"], b.mul(b.add(first, self.whole(panel)), size)) for panel in range(count)
        ]

    def _ahead(self, weights: Value, length: Value, block: Value) -> Value:
        """Where the part of the next panel begins that this block fetches: each of the first blocks a vector per k.

        The last panel has none after it; fetching what is not there is no fault.
        """
        b = self.b
        own = b.mul(length, self.whole(self.v.lanes))
        behind = self.beside(weights, b.mul(own, b.add(block, self.whole(self.width))))
        return b.select(b.icmp_signed("<", block, self.whole(self.width)), behind, weights)

    def _run(
        self,
        start: Value,
        end: Value,
        operands: list[Value],
        weights: list[Value],
        rooms: list[Value],
        carried: list[Value],
        ahead: Value | None,
    ) -> list[Value]:
        """The sums with the products of the numbers from `start` to `end`, k by k."""
        b, rows = self.b, len(operands)
        each = rows * len(weights) * self.width
        length = b.sub(end, start)

        def put(values: list[Value]) -> list[Value]:
            *sums, _, away = values
            self._put(rooms, rows, sums, away)
            return [*[self.v.number(0.0)] * len(sums), self.whole(0), self.whole(1)]

        many = b.icmp_signed(">", b.add(carried[-2], length), self.whole(LONGEST))
        *sums, had, away = self.changed_if(many, carried, put)
        sets = len(sums) // each
        at_once = max(sets, _UNROLLED if rows > FEW_ROWS else 1)
        done: Value = start
        if at_once > 1:
            done = b.sub(end, b.urem(length, self.whole(at_once)))
            with self.summing("k", done, sums, first=start, step=at_once) as (k, running, following):
                following += running
                at_k = self._at(k, operands, weights)
                if ahead is not None:
                    self._fetch(self.beside(ahead, b.mul(k, self.whole(self.v.lanes))), at_once)
                for place in range(at_once):
                    own_set = slice(place % sets * each, (place % sets + 1) * each)
                    following[own_set] = self._add(place, *at_k, following[own_set])
        some, others = sums[:each], sums[each:]
        with self.summing("k", end, some, first=done) as (k, running, following):
            following += self._add(0, *self._at(k, operands, weights), running)
        return [*some, *others, b.add(had, length), away]

    def _fetch(self, start: Value, vectors: int) -> None:
        """Ask for so many vectors from there on, line by line, into the cache of the second level."""
        for vector in range(0, vectors, max(1, LINE // (self.v.lanes * self.element_bytes))):
            self.prefetch(self.beside(start, self.whole(vector * self.v.lanes)))

    def _at(self, k: Value, operands: list[Value], panels: list[Value]) -> tuple[list[Value], list[Value]]:
        """Where the k-th number of each operand is, and the weights in each panel that belong to it."""
        start = self.b.mul(k, self.whole(self.width * self.v.lanes))
        return [self.at(operand, k) for operand in operands], [self.at(panel, start) for panel in panels]

    def _add(self, place: int, operands: list[Value], panels: list[Value], sums: list[Value]) -> list[Value]:
        """sums + operand[place] * weights[place], vector by vector, row by row."""
        weights = [
            self.load(self.at(panel, self.whole(place * self.width + vector), self.v.vector))
            for panel in panels
            for vector in range(self.width)
        ]
        # Row by row, so that one number of an operand is in a register at a time.
        added = [*sums]
        for row, operand in enumerate(operands):
            number = self.v.splat(self.load_one(self.at(operand, self.whole(place))))
            for vector, weight in enumerate(weights):
                own = vector * len(operands) + row
                added[own] = self.v.fma(number, weight, sums[own])
        return added


# All files whose text a routine depends on.
MADE_BY = tuple(
    Path(__file__).with_name(name)
    for name in ("products.py", "code.py", "target.py", "tiles.py", "vectors.py")
)


@cache
def routine(width: int, element_bytes: int, target: Target) -> bytes:
    """The object code of the routine for panels of so many vectors."""
    return object_code_by(
        lambda: Products(width, element_bytes, target).emit(),
        routine_name(width, element_bytes, target),
        MADE_BY,
        target,
    )
