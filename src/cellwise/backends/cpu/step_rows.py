"""Where rows lie in a batch whose rows have several lengths, and copies of them, in a chain that is told where the rows
of each step begin, and no more.

    void lay_out(int64 *table)      of table[0] batches: the arrays of `TimeSchedule`, from its offsets
    void step_rows(int64 *table)    of table[0] jobs of the first kind, and table[1] of the second:

    before    to[offsets[t] + i] = from[before[t] + i], what row i of the batch has before step t; first[i] if it begins
              there
    end       to[i] = from[after[t] + i], what row i has after its last step t; first[i] if it has none
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from llvmlite import ir

from cellwise.backends.cpu.code import I64, POINTER, Code, Value
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.copy_rows import copied
from cellwise.backends.cpu.target import Target

# Arrays over the `steps`: `following` and `other before` are limits and before of the same steps the other way round.
TIMES = ("limits", "before", "pair before", "pair after", "following", "other before")
LAY_OUT = ("offsets", "steps", "batch", "backwards", *TIMES)
# Rows of so many `numbers`, one `to row`, `from row` or `first row` numbers behind the other.
_ROWS = ("to", "to row", "from", "from row", "first", "first row", "numbers", "steps", "offsets")
BEFORE = (*_ROWS, "limits", "before")
END = (*_ROWS, "following", "after", "batch")
_NUMBERS = ("to row", "from row", "first row", "numbers", "steps", "batch", "backwards")


class _OverSteps(Code):
    """Emits the loop over jobs of some kinds."""

    def rows_of(self, word: dict[str, Value], time: Value) -> tuple[Value, Value]:
        """The first row of a step, and that after its last."""
        return self.load_whole(word["offsets"], time), self.load_whole(
            word["offsets"], self.b.add(time, self.whole(1))
        )

    def jobs(self, *kinds: tuple[tuple[str, ...], Callable[[dict[str, Value]], None]]) -> ir.Module:
        b = self.b
        table, _ = self.function.args
        at: Value = self.whole(len(kinds))
        for place, (names, do) in enumerate(kinds):
            count = self.load_whole(table, place)
            with self.loop("job", count) as number:
                start = b.add(at, b.mul(number, self.whole(len(names))))
                word = {
                    name: self.load_whole(table, b.add(start, self.whole(i))) for i, name in enumerate(names)
                }
                do({
                    name: value if name in _NUMBERS else b.inttoptr(value, POINTER)
                    for name, value in word.items()
                })  # fmt: skip
            at = b.add(at, b.mul(count, self.whole(len(names))))
        b.ret_void()
        return self.module


class LayOut(_OverSteps):
    """Emits what fills arrays over time."""

    def emit(self) -> ir.Module:
        return self.jobs((LAY_OUT, self._fill))

    def _fill(self, word: dict[str, Value]) -> None:
        b, none = self.b, self.whole(0)
        steps, is_backwards = word["steps"], b.icmp_signed("!=", word["backwards"], none)
        last = b.sub(steps, self.whole(1))

        def put(name: str, time: Value, value: Value) -> None:
            b.store(value, self.at(word[name], time, I64))

        with self.loop("step", steps) as time:
            is_first, is_last = b.icmp_signed("==", time, none), b.icmp_signed("==", time, last)
            earlier = b.select(is_first, none, b.sub(time, self.whole(1)))
            start, end = self.rows_of(word, time)
            _, size_after = self.rows_of(word, b.select(is_last, time, b.add(time, self.whole(1))))
            along = (
                b.select(is_first, none, b.sub(end, start)),
                b.select(is_first, none, self.load_whole(word["offsets"], earlier)),
            )
            opposite = b.select(is_last, none, b.sub(size_after, end)), b.select(is_last, none, end)
            for names, backwards, forwards in (
                (("limits", "before"), opposite, along),
                (("following", "other before"), along, opposite),
            ):
                for name, one, other in zip(names, backwards, forwards, strict=True):
                    put(name, time, b.select(is_backwards, one, other))
            place = b.select(is_backwards, b.sub(last, time), time)
            after = b.mul(b.and_(place, self.whole(1)), word["batch"])
            put("pair after", time, after)
            put("pair before", time, b.sub(word["batch"], after))


class StepRows(_OverSteps):
    """Emits the copies for one element type."""

    def emit(self) -> ir.Module:
        return self.jobs((BEFORE, self._before), (END, self._end))

    def _copy(self, word: dict[str, Value], to: Value, kind: str, source: Value, rows: Value) -> None:
        """So many rows from a row of `from`, or `first`, to a row of `to`."""

        def side(name: str, row: Value) -> tuple[Value, Value]:
            return self.at(word[name], self.b.mul(row, word[f"{name} row"])), word[f"{name} row"]

        copied(self, side("to", to), side(kind, source), rows, word["numbers"], word["numbers"])

    def _before(self, word: dict[str, Value]) -> None:
        b = self.b
        with self.loop("step", word["steps"]) as time:
            start, end = self.rows_of(word, time)
            limit = self.load_whole(word["limits"], time)
            self._copy(word, start, "from", self.load_whole(word["before"], time), limit)
            first = b.add(start, limit)
            self._copy(word, first, "first", limit, b.sub(end, first))

    def _end(self, word: dict[str, Value]) -> None:
        b = self.b
        with self.loop("step", word["steps"]) as time:
            start, end = self.rows_of(word, time)
            following = self.load_whole(word["following"], time)
            after = b.add(self.load_whole(word["after"], time), following)
            self._copy(word, following, "from", after, b.sub(end, b.add(start, following)))
        _, some = self.rows_of(word, self.whole(0))  # which begin at 0
        self._copy(word, some, "first", some, b.sub(word["batch"], some))


@cache
def lay_out(element_bytes: int, target: Target) -> Callable[[int, int], None]:
    """The compiled loop that fills arrays."""
    return load("lay_out", object_code(LayOut("lay_out", element_bytes, target).emit(), target))


@cache
def step_rows(element_bytes: int, target: Target) -> Callable[[int, int], None]:
    """The compiled loop over copies."""
    return load("step_rows", object_code(StepRows("step_rows", element_bytes, target).emit(), target))
