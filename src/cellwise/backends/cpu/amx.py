"""Tile registers: matrices of 16 rows by 64 bytes, and an instruction that adds the product of two to a third.

    sums (rows, units)  +=  operand (rows, 32 numbers)  x  weights (16 words, units, 2 numbers)

Operands and weights are bfloat16, sums are float32. An operand is rows of memory as they lie; weights lie as
`bf16_products` has them. Intel's AMX has eight such registers. How many rows of an operand and of sums there are stands
in a register of each thread, which is set before any of them is used and given back at the end.

`tiles_for` gives one of two forms, by `Target.tiles`. "instructions" are those of AMX. "loops" do the same over memory,
on any processor and with vectors of any width, so that what surrounds them is tested everywhere: a sum takes in 32
products at a time, those of the even and of the odd numbers added up apart, from zero (Intel 64 and IA-32 Architectures
Software Developer's Manual, volume 2, TDPBF16PS).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from llvmlite import ir

from cellwise.backends.cpu.bf16 import I32, WORD, halves
from cellwise.backends.cpu.code import I8, POINTER, Code, Value

ROWS = 16  # of a tile at most; and how many words of an operand one product takes
WORDS = ROWS
NUMBERS = 2 * WORDS  # of an operand
# Rows from which tiles are used: a tile of a few rows costs as many loads of weights as one of 16.
FEWEST_ROWS = 8
REGISTERS = 8
_ROW_BYTES = 64
INSTRUCTIONS, LOOPS = "instructions", "loops"

# Which register holds what, in all code: sums of two rows of tiles by two columns, or of one row by four columns.
SUMS, OPERANDS, WEIGHTS = (0, 1, 2, 3), (4, 5), (6, 7)


def whole_words(code: Code, words: Value) -> Value:
    """So many words rounded up to whole tiles."""
    b = code.b
    return b.and_(b.add(words, code.whole(WORDS - 1)), code.whole(-WORDS))


def tile_rows(code: Code, rows: Value) -> Value:
    """How many rows a tile has where there are so many."""
    b = code.b
    return b.select(b.icmp_signed("<", rows, code.whole(ROWS)), rows, code.whole(ROWS))


class Tiles(ABC):
    """Code on tile registers, where the builder of `code` stands; made where a function begins."""

    def __init__(self, code: Code) -> None:
        self.code = code

    @abstractmethod
    def configure(self, rows: Value) -> None:
        """From here on operands and sums have so many rows, at least 1 and at most `ROWS`; all tiles are zero."""

    @abstractmethod
    def release(self) -> None:
        """Tiles are not used any more, until they are configured again."""

    @abstractmethod
    def load(self, tile: int, start: Value, stride: Value, rows: Value) -> None:
        """Fill a tile with rows that are so many bytes apart, 0 for one row again and again. `rows` as configured."""

    @abstractmethod
    def store(self, tile: int, start: Value, stride: Value, rows: Value) -> None:
        """Put the sums of a tile into such rows."""

    @abstractmethod
    def multiply(self, sums: int, operand: int, weights: int, rows: Value) -> None:
        """Add the product of two tiles to a third."""


class _Instructions(Tiles):
    """AMX-TILE and AMX-BF16."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        # Of the palette 1: its number, 15 bytes that are zero, bytes of a row of each of 16 tiles in two bytes, rows of
        # each in one. There are eight tiles, the others are zero.
        self.shapes = _room(code, 64, "tile_shapes")

    def configure(self, rows: Value) -> None:
        b = self.code.b
        height = b.trunc(rows, I8)
        every = [1, *[0] * 15, *[_ROW_BYTES, 0] * REGISTERS, *[0] * 16, *[ROWS] * REGISTERS, *[0] * 8]
        kind = ir.VectorType(I8, len(every))
        shapes: Value = ir.Constant(kind, every)
        for tile in (*SUMS, *OPERANDS):
            shapes = b.insert_element(shapes, height, ir.Constant(I32, 48 + tile))
        b.store(shapes, self.shapes, align=64)
        self._call("ldtilecfg", self.shapes)

    def release(self) -> None:
        self._call("tilerelease")

    def load(self, tile: int, start: Value, stride: Value, rows: Value) -> None:
        self._call("tileloadd64", tile, start, stride)

    def store(self, tile: int, start: Value, stride: Value, rows: Value) -> None:
        self._call("tilestored64", tile, start, stride)

    def multiply(self, sums: int, operand: int, weights: int, rows: Value) -> None:
        self._call("tdpbf16ps", sums, operand, weights)

    def _call(self, name: str, *given: Value | int) -> None:
        values = [ir.Constant(I8, each) if isinstance(each, int) else each for each in given]
        kinds = [POINTER if isinstance(value.type, ir.PointerType) else value.type for value in values]
        self.code.b.call(self.code.declared(f"llvm.x86.{name}", kinds), values)


class _Loops(Tiles):
    """The same over memory. Weights and sums are as wide as a vector: of 64 bytes where they are those of AMX."""

    def __init__(self, code: Code) -> None:
        super().__init__(code)
        self.memory = _room(code, REGISTERS * ROWS * _ROW_BYTES, "tiles")

    def configure(self, rows: Value) -> None:
        pass

    def release(self) -> None:
        pass

    def load(self, tile: int, start: Value, stride: Value, rows: Value) -> None:
        code = self.code
        vectors = WORDS // code.v.lanes if tile in OPERANDS else 1
        with code.loop("loaded", rows if tile not in WEIGHTS else code.whole(WORDS)) as row:
            source = code.at(start, code.b.mul(row, stride), I8)
            for vector in range(vectors):
                words = self._words(code.at(source, code.whole(vector * code.v.lanes), I32))
                code.b.store(words, self._row(tile, row, vector), align=WORD)

    def store(self, tile: int, start: Value, stride: Value, rows: Value) -> None:
        code = self.code
        with code.loop("stored", rows) as row:
            to = code.at(start, code.b.mul(row, stride), I8)
            code.b.store(self._words(self._row(tile, row)), to, align=WORD)

    def multiply(self, sums: int, operand: int, weights: int, rows: Value) -> None:
        code, v = self.code, self.code.v
        b = code.b
        with code.loop("multiplied", rows) as row:
            apart = [v.number(0.0), v.number(0.0)]
            with code.summing("word", code.whole(WORDS), apart) as (word, running, following):
                number = b.load(code.at(self._row(operand, row), word, I32), typ=I32, align=WORD)
                words = b.bitcast(v.splat(b.bitcast(number, v.element)), v.integers)
                pairs = zip(halves(v, words), halves(v, self._words(self._row(weights, word))), strict=True)
                following += [v.fma(a, c, total) for (a, c), total in zip(pairs, running, strict=True)]
            place = self._row(sums, row)
            before = b.load(place, typ=v.vector, align=WORD)
            b.store(b.fadd(before, b.fadd(*apart)), place, align=WORD)

    def _row(self, tile: int, row: Value, vector: int = 0) -> Value:
        """Where a row of a tile is, from one of its vectors on."""
        code = self.code
        first = code.at(
            self.memory, code.whole(tile * ROWS * _ROW_BYTES + vector * code.target.vector_bytes), I8
        )
        return code.at(first, code.b.mul(row, code.whole(_ROW_BYTES)), I8)

    def _words(self, pointer: Value) -> Value:
        return self.code.b.load(pointer, typ=self.code.v.integers, align=WORD)


def _room(code: Code, size: int, name: str) -> Value:
    """So many bytes on the stack, in whole lines."""
    # As pointers: of anything else llvmlite gives a pointer with a type.
    room = code.b.alloca(POINTER, size // 8, name=name)
    room.align = _ROW_BYTES
    return room


_FORMS: dict[str, type[Tiles]] = {INSTRUCTIONS: _Instructions, LOOPS: _Loops}


def tiles_for(code: Code) -> Tiles | None:
    """What the target of `code` has; None if it has no tiles."""
    form = _FORMS.get(code.target.tiles)
    return form(code) if form else None
