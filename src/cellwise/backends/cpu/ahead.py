"""The products of the input for a block of steps at once, in the kernel of a program that has them before its steps.

Within a step the weights of the input meet the rows of that step. With few of these a core waits for weights to come
from the cache of the second or third level; for a block of steps they come once. Each thread does this for its own
rows, and waits for no other.

The rows of a block lie one after the other in a copy, step by step in the order in which the steps run. So do those of
the sums, as the routine of products leaves them: (pair, panel, row, vector, lane).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from cellwise.backends.cpu.code import I64, Value
from cellwise.backends.cpu.tiles import TILES
from cellwise.plan.program import Stage, Width

if TYPE_CHECKING:
    from cellwise.backends.cpu.kernel import Emitter


class Ahead:
    """The part of a kernel that does the stage before the steps."""

    def __init__(self, kernel: Emitter, stage: Stage) -> None:
        self.kernel, self.stage = kernel, stage
        # All of it comes of the input.
        (self.group,) = kernel.groups[stage]
        ((_, slot),) = stage.writes[:1]
        self.buffer = slot.buffer.name

    @contextmanager
    def blocks(self) -> Iterator[tuple[Value, Value]]:
        """A loop over blocks of steps: yields the numbers of the first step and of that after the last."""
        k = self.kernel
        b = k.b
        # How many rows of the block are done.
        self.done = b.alloca(I64, name="done")
        steps, length = k.size["steps"], k.size["block steps"]
        with k.loop("block", steps, step=length) as first:
            end = b.add(first, length)
            end = b.select(b.icmp_signed("<", end, steps), end, steps)
            k.part("ahead", partial(self._multiply, self._copy(first, end)))
            b.store(k.whole(0), self.done)
            yield first, end

    def _copy(self, first: Value, end: Value) -> Value:
        """Copy the inputs of these steps; how many rows they are."""
        k = self.kernel
        b, width, lanes = k.b, k.size[Width.INPUT.value], k.v.lanes
        operands, x = k.addresses[self.buffer, "operands"], k.buffers["x"]
        rows: list[Value] = [k.whole(0)]
        with k.summing("copied", end, rows, first=first) as (count, running, following):
            start, active = k.rows_at(k.time(count))
            source, to = k.at(x, b.mul(start, width)), k.at(operands, b.mul(running[0], width))
            numbers = b.mul(active, width)
            whole = b.sub(numbers, b.urem(numbers, k.whole(lanes)))
            with k.loop("vector", whole, step=lanes) as number:
                k.store(k.load(k.at(source, number)), k.at(to, number))
            with k.loop("number", numbers, first=whole) as number:
                k.store(k.load_one(k.at(source, number)), k.at(to, number))
            following.append(b.add(running[0], active))
        return rows[0]

    def _multiply(self, rows: Value) -> None:
        """The products of so many rows of the copy, pair by pair."""
        k, group = self.kernel, self.group
        b, width = k.b, k.size[Width.INPUT.value]
        tiles = b.sdiv(k.padded(self.stage.width), k.whole(k.v.lanes))
        operands = k.addresses[self.buffer, "operands"]
        term = {"operand": operands, "first": operands, "limit": rows, "row": width, "length": width}
        term |= {"run": k.runs[Width.INPUT], "weights": k.weights[group, group.terms[0]]}
        start, end = k.share(tiles)
        with k.loop("ahead.pair", end, first=start, step=TILES) as first:
            pair = b.sdiv(first, k.whole(TILES))
            given = {"rows": rows, "stride": k.size["block rows"], "room": self._sums(pair)}
            k.describe(group, tiles, given, [term])
            k.products(self.stage, group, pair)

    def _sums(self, pair: Value) -> Value:
        """Where the sums of a pair of tiles begin."""
        k = self.kernel
        vectors = k.b.mul(k.size["block rows"], k.whole(self.group.vectors * k.v.lanes))
        return k.at(k.addresses[self.buffer, "sums"], k.b.mul(pair, vectors))

    def find(self, tile: Value) -> None:
        """From here on it is about a tile of units, and the rows of the present step."""
        k, width = self.kernel, self.group.width
        b = k.b
        pair, u = b.sdiv(tile, k.whole(TILES)), b.srem(tile, k.whole(TILES))
        sums, done = self._sums(pair), k.load_whole(self.done, 0)
        self.starts = []
        for accumulator in self.group.accumulators:
            panel, vector = k.place_of(self.group, accumulator, u)
            place = b.mul(b.add(b.mul(panel, k.size["block rows"]), done), k.whole(width))
            self.starts.append(k.at(sums, b.mul(b.add(place, vector), k.whole(k.v.lanes))))

    def address(self, column: int, row: Value) -> Value:
        """Where the input's product of a gate is for a row, in the tile that was found."""
        k = self.kernel
        return k.at(self.starts[column], k.b.mul(row, k.whole(self.group.width * k.v.lanes)))

    def step_is_done(self) -> None:
        """The rows of the next step follow."""
        k = self.kernel
        k.b.store(k.b.add(k.load_whole(self.done, 0), k.active), self.done)
