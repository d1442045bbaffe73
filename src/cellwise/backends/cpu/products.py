"""The products of a stage for a pair of tiles: sums in registers, a block of rows and a panel at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from cellwise.backends.cpu.code import Code, Value
from cellwise.backends.cpu.tiles import Group
from cellwise.plan.program import Ref, Segment

# Multiply-adds that a core must have under way to be busy: two a cycle, each of four cycles.
_BUSY = 8
FEW_ROWS = 2  # so few take several panels at once


@dataclass(frozen=True)
class Block:
    """So many rows by so many panels from this one on."""

    row: Value
    rows: int
    panel: Value
    panels: int


class Products:
    """Emits the products of one group of a stage.

    `row_of` gives the address of an operand's row, `length_of` how many numbers it has, `weights_of` the packed weights
    of a segment in this group, (pair, panel, k, vector, lane), `biases` likewise without k, `room` receives the sums,
    (panel, row, vector, lane) with `stride` rows in a panel.
    """

    def __init__(
        self,
        code: Code,
        group: Group,
        row_of: Callable[[Ref, Value], Value],
        length_of: Callable[[Segment], Value],
        weights_of: Callable[[Segment], Value],
        biases: Value,
        room: Value,
        stride: Value,
    ) -> None:
        self.code, self.group = code, group
        self.row_of, self.length_of, self.weights_of = row_of, length_of, weights_of
        self.biases, self.room, self.stride = biases, room, stride

    def emit(self, pair: Value, rows: Value, blocks: list[tuple[int, Value, Value]]) -> None:
        """All rows of one pair of tiles; `blocks` are (rows of a block, first row, end) for more than a few rows."""
        code, b = self.code, self.code.b
        few = b.icmp_signed("<=", rows, code.whole(FEW_ROWS))
        with b.if_else(few) as (when_few, when_many):
            with when_few:
                for size in range(1, FEW_ROWS + 1):
                    with b.if_then(b.icmp_signed("==", rows, code.whole(size))):
                        self._few(pair, size)
            with when_many, code.loop("panel", code.whole(self.group.panels)) as panel:
                for size, first, end in blocks:
                    with code.loop(f"rows{size}", end, first=first, step=size) as row:
                        self._block(pair, Block(row, size, panel, 1))

    def _few(self, pair: Value, rows: int) -> None:
        """Few rows take several panels at once, so that enough multiply-adds are under way."""
        group = self.group
        most = max(1, self.code.target.accumulators // (rows * group.width))
        at_once = max(count for count in range(1, min(most, group.panels) + 1) if group.panels % count == 0)
        with self.code.loop("panel", self.code.whole(group.panels), step=at_once) as panel:
            self._block(pair, Block(self.code.whole(0), rows, panel, at_once))

    def _block(self, pair: Value, block: Block) -> None:
        code, b, width = self.code, self.code.b, self.group.width
        first = b.add(b.mul(pair, code.whole(self.group.panels)), block.panel)  # panels before this one
        start = b.mul(first, code.whole(width * code.v.lanes))
        sums = []
        for vector in range(block.panels * width):
            bias = code.load(code.at(self.biases, b.add(start, code.whole(vector * code.v.lanes))))
            sums += [bias] * block.rows
        for segment in self.group.segments:
            self._segment(segment, first, block, sums)
        for number, value in enumerate(sums):
            vector, row = divmod(number, block.rows)
            panel = b.add(block.panel, code.whole(vector // width))
            place = b.add(b.mul(panel, self.stride), b.add(block.row, code.whole(row)))
            place = b.add(b.mul(place, code.whole(width)), code.whole(vector % width))
            code.store(value, code.at(self.room, b.mul(place, code.whole(code.v.lanes))))

    def _segment(self, segment: Segment, first: Value, block: Block, sums: list[Value]) -> None:
        """Add one operand's products to the sums, k by k; where these are few, in several sets of sums."""
        code, b = self.code, self.code.b
        length = self.length_of(segment)
        operands = [self.row_of(segment.operand, b.add(block.row, code.whole(r))) for r in range(block.rows)]
        panel_size = b.mul(length, code.whole(self.group.width * code.v.lanes))
        base = self.weights_of(segment)
        panels = [code.at(base, b.mul(b.add(first, code.whole(p)), panel_size)) for p in range(block.panels)]
        sets = -(-_BUSY // len(sums))
        done = code.whole(0)
        if sets > 1:
            done = b.sub(length, b.srem(length, code.whole(sets)))
            many = [*sums, *[code.v.number(0.0)] * (len(sums) * (sets - 1))]
            with code.summing("k", done, many, step=sets) as (k, running, following):
                for number in range(sets):
                    part = running[number * len(sums) : (number + 1) * len(sums)]
                    following += self._add(b.add(k, code.whole(number)), operands, panels, part)
            sums[:] = [reduce(b.fadd, many[place :: len(sums)]) for place in range(len(sums))]
        with code.summing("k", length, sums, first=done) as (k, running, following):
            following += self._add(k, operands, panels, running)

    def _add(self, k: Value, operands: list[Value], panels: list[Value], sums: list[Value]) -> list[Value]:
        """sums + operand[k] * weights[k], vector by vector, row by row."""
        code, b, width = self.code, self.code.b, self.group.width
        start = b.mul(k, code.whole(width * code.v.lanes))
        weights = [
            code.load(code.at(panel, b.add(start, code.whole(vector * code.v.lanes))))
            for panel in panels
            for vector in range(width)
        ]
        # Row by row, so that one number of an operand is in a register at a time.
        added = [*sums]
        for row, operand in enumerate(operands):
            number = code.v.splat(code.load_one(code.at(operand, k)))
            for vector, weight in enumerate(weights):
                place = vector * len(operands) + row
                added[place] = code.v.fma(number, weight, sums[place])
        return added
