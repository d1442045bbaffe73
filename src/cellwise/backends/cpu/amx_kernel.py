"""What a kernel does for the tile registers of its products.

They are configured for the rows of a step, when these change, and released where the kernel ends.

Tiles read the rows of an operand in whole tiles, from one place. So rows that are not as long are copied once a step,
with zeros behind them, and so are rows that lie in two places: behind the sums of `room`, one operand of a stage after
the other.
"""

from __future__ import annotations

from collections.abc import Mapping

from llvmlite import ir

from cellwise.backends.cpu.amx import FEWEST_ROWS, NUMBERS, tile_rows, tiles_for
from cellwise.backends.cpu.bf16 import BYTES, I16, I32
from cellwise.backends.cpu.code import I64, POINTER, Code, Value
from cellwise.backends.cpu.kernel import Emitter
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import Group, room_vectors
from cellwise.plan.program import MatmulTerm, Program, Slot, Stage, Width

_NUMBERS = ir.VectorType(I16, NUMBERS)


def copied_numbers(program: Program, target: Target, lengths: Mapping[Width, int]) -> int:
    """Numbers of bfloat16 that the copies of a row take up, in the stage that has the most."""
    if not target.tiles:
        return 0
    operands = [{term.operand for term in stage.terms} for stage in program.stages]
    sizes = [sum(-(-lengths[slot.buffer.width] // NUMBERS) * NUMBERS for slot in each) for each in operands]
    return max(sizes, default=0)


class TiledEmitter(Emitter):
    """A kernel whose products are those of `bf16_products`; without tile registers nothing is added to it."""

    copies_of_a_row = 1

    def __init__(self, program: Program, element_bytes: int, target: Target) -> None:
        super().__init__(program, element_bytes, target)
        self.tiles = tiles_for(self) if any(stage.terms for stage in program.stages) else None
        self.copies: dict[Slot, dict[str, Value]] = {}  # of the stage: words of a term, by operand

    def _routines(self) -> None:
        super()._routines()
        if self.tiles is not None:
            self.configured = self.b.alloca(I64, name="configured")  # for so many rows
            self.b.store(self.whole(0), self.configured)

    def _end(self) -> None:
        b = self.b
        if self.tiles is not None:
            with b.if_then(b.icmp_signed("!=", b.load(self.configured, typ=I64), self.whole(0))):
                self.tiles.release()

    def _find_rows(self, t: Value) -> None:
        super()._find_rows(t)
        if self.tiles is None:
            return
        b = self.b
        rows = tile_rows(self, self.active)
        is_new = b.icmp_signed("!=", b.load(self.configured, typ=I64), rows)
        with b.if_then(b.and_(is_new, b.icmp_signed(">=", rows, self.whole(FEWEST_ROWS))), likely=False):
            self.tiles.configure(rows)
            b.store(rows, self.configured)

    def stage(self, number: int, stage: Stage) -> None:
        self.copies = {}
        super().stage(number, stage)

    def _term(self, group: Group, term: MatmulTerm) -> dict[str, Value]:
        words = super()._term(group, term)
        if self.tiles is None:
            return words
        if term.operand not in self.copies:
            self.copies[term.operand] = self.in_whole_tiles(words)
        return words | self.copies[term.operand]

    def in_whole_tiles(self, words: dict[str, Value]) -> dict[str, Value]:
        """The words of a term that say where its rows are, for tiles."""
        b, length, limit, rows = self.b, words["length"], words["limit"], self.active
        apart = b.and_(b.icmp_signed(">", limit, self.whole(0)), b.icmp_signed("<", limit, rows))
        cut = b.icmp_signed("!=", b.and_(length, self.whole(NUMBERS - 1)), self.whole(0))
        copied = b.and_(b.icmp_signed(">=", rows, self.whole(FEWEST_ROWS)), b.or_(apart, cut), name="copied")
        start, width = self.copies_start(), in_tiles(self, length)
        with b.if_then(b.and_(copied, b.icmp_signed(">", length, self.whole(0)))):
            rest = b.sub(width, self.whole(NUMBERS))
            mask = _is_below(self, b.sub(length, rest))
            with self.loop("copied", rows) as row:
                base = b.select(b.icmp_signed("<", row, limit), words["operand"], words["first"])
                source = self.at(base, b.mul(row, words["row"]), I16)
                to = self.at(start, b.mul(row, width), I16)
                with self.loop("numbers", rest, step=NUMBERS) as number:
                    numbers = b.load(self.at(source, number, I16), typ=_NUMBERS, align=BYTES)
                    b.store(numbers, self.at(to, number, I16), align=BYTES)
                last = _masked(self, self.at(source, rest, I16), mask)
                b.store(last, self.at(to, rest, I16), align=BYTES)
        return {
            "operand": b.select(copied, start, words["operand"]),
            "first": b.select(copied, start, words["first"]),
            "row": b.select(copied, width, words["row"]),
        }

    def copies_start(self) -> Value:
        """Where the next copy of the stage begins."""
        b, rows = self.b, self.size["rows"]
        sums = self.whole(room_vectors(self.program, self.target) * self.v.lanes)
        start = self.at(self.room, b.mul(sums, rows), self.v.element)
        for other in self.copies:
            numbers = in_tiles(self, self.size[other.buffer.width.value])
            start = self.at(start, b.mul(b.mul(numbers, rows), self.whole(self.copies_of_a_row)), I16)
        return start


def in_tiles(code: Code, length: Value) -> Value:
    """A length rounded up to whole tiles."""
    b = code.b
    return b.and_(b.add(length, code.whole(NUMBERS - 1)), code.whole(-NUMBERS))


def _is_below(code: Code, count: Value) -> Value:
    """Which numbers of a row of a tile are the first so many."""
    b = code.b
    undefined = ir.Constant(_NUMBERS, ir.Undefined)
    one = b.insert_element(undefined, b.trunc(count, I16), ir.Constant(I32, 0))
    every = b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, NUMBERS), [0] * NUMBERS))
    return b.icmp_unsigned("<", ir.Constant(_NUMBERS, list(range(NUMBERS))), every)


def _masked(code: Code, pointer: Value, mask: Value) -> Value:
    """The numbers of a row of a tile that the mask has; of the others, which are not read, zeros."""
    kind = ir.FunctionType(_NUMBERS, [POINTER, I32, mask.type, _NUMBERS])
    name = f"llvm.masked.load.v{NUMBERS}i16.p0"
    function = code.module.globals.get(name) or ir.Function(code.module, kind, name)
    zeros = ir.Constant(_NUMBERS, [0] * NUMBERS)
    return code.b.call(function, [pointer, ir.Constant(I32, BYTES), mask, zeros])
