"""Layers of a stack beside each other: each is a lane of tasks, and a block of its steps begins when the layer before
has done its own.

    void wave(int64 *table, int64 lane)

A thread goes on in the lane where it is, whose weights its caches hold, as long as that has something to do; else it
takes what can be begun in the first lane that has such a task. So it does not matter how many threads come, or when:
one alone does lane after lane, and a lane whose thread has lost its core between two tasks is taken over. In a lane
one task is done after the other, so a result has the same bits whoever does them.

The first task of a lane (packing) and the last (gradients of weights) wait for no other lane.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from cellwise.backends.cpu.by_units import ARRIVALS, ROUNDS, give_way, pause
from cellwise.backends.cpu.chain import Chain
from cellwise.backends.cpu.code import I64, Code, Value
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target, host
from cellwise.backends.cpu.team import Share

# How many lanes, and tasks of each, and a function that gives way to other threads; and of each lane on lines of the
# cache of their own whether a thread is in it, how many of its tasks are done, and where they are.
_WORDS = ("lanes", "tasks", "give way")
_LANE = ("taken", "done", "links")
_LANE_WORDS = len(_LANE) * ARRIVALS


class _Wave(Code):
    """Emits what every thread does."""

    kinds = (ir.PointerType(), I64)

    def __init__(self, target: Target) -> None:
        super().__init__("wave", 8, target)
        self.table, self.first = self.function.args
        self.lanes, self.tasks = (self.load_whole(self.table, _WORDS.index(n), n) for n in ("lanes", "tasks"))

    def place(self, lane: Value, name: str) -> Value:
        at = self.b.mul(self.b.add(lane, self.whole(1)), self.whole(_LANE_WORDS))
        return self.at(self.table, self.b.add(at, self.whole(_LANE.index(name) * ARRIVALS)), I64)

    def done(self, lane: Value) -> Value:
        return self.b.load_atomic(self.place(lane, "done"), "acquire", align=8, typ=I64)

    def is_ready(self, lane: Value, number: Value) -> Value:
        """Whether a lane's task can be begun, if nobody is in the lane."""
        b, whole = self.b, self.whole
        last = b.sub(self.tasks, whole(1))
        is_first = b.icmp_signed("==", lane, whole(0))
        before = self.done(b.select(is_first, lane, b.sub(lane, whole(1))))
        is_free = b.or_(b.icmp_signed("==", number, whole(0)), b.icmp_signed("==", number, last))
        can = b.or_(b.or_(is_free, is_first), b.icmp_signed(">", before, number))
        return b.and_(b.icmp_signed("<", number, self.tasks), can)

    def run(self, lane: Value, number: Value) -> None:
        b = self.b
        links = b.inttoptr(self.load_whole(self.place(lane, "links"), 0), ir.PointerType())
        function, first, second = (
            self.load_whole(links, b.add(b.mul(number, self.whole(3)), self.whole(i))) for i in range(3)
        )
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        b.call(b.inttoptr(function, ir.PointerType(kind)), [first, second])

    def emit(self) -> ir.Module:
        b, whole = self.b, self.whole
        own, rounds = (b.alloca(I64, name=name) for name in ("own", "rounds"))
        b.store(b.srem(self.first, self.lanes), own)
        b.store(whole(0), rounds)
        names = ("look", "turn", "enter", "found", "next", "none", "wait", "end")
        look, turn, enter, found, following, none, wait, end = map(b.append_basic_block, names)
        b.branch(look)
        b.position_at_end(look)
        b.branch(turn)
        # The lane where this thread is, and then all of them.
        b.position_at_end(turn)
        count, left = b.phi(I64, "turn"), b.phi(I64, "left")
        for phi in (count, left):
            phi.add_incoming(whole(0), look)
        is_first = b.icmp_signed("==", count, whole(0))
        lane = b.select(is_first, b.load(own, typ=I64), b.sub(count, whole(1)), name="lane")
        number = self.done(lane)
        taken = b.load_atomic(self.place(lane, "taken"), "acquire", align=8, typ=I64)
        is_taken = b.icmp_signed("!=", taken, whole(0))
        # What is left to begin: nothing, where another thread is at the last task.
        behind = b.select(is_taken, b.add(number, whole(1)), number)
        here = b.or_(left, b.zext(b.icmp_signed("<", behind, self.tasks), I64))
        b.cbranch(b.and_(b.not_(is_taken), self.is_ready(lane, number)), enter, following)
        b.position_at_end(enter)
        swapped = b.cmpxchg(self.place(lane, "taken"), whole(0), whole(1), "seq_cst", "seq_cst")
        b.cbranch(b.extract_value(swapped, 1), found, following)
        b.position_at_end(found)
        self._next_of(lane)
        b.store(lane, own)
        b.store(whole(0), rounds)
        b.branch(look)
        b.position_at_end(following)
        after = b.add(count, whole(1))
        count.add_incoming(after, following)
        left.add_incoming(here, following)
        b.cbranch(b.icmp_signed("<=", after, self.lanes), turn, none)
        b.position_at_end(none)
        b.cbranch(b.icmp_signed("!=", here, whole(0)), wait, end)
        b.position_at_end(wait)
        self._wait(rounds)
        b.branch(look)
        b.position_at_end(end)
        b.ret_void()
        return self.module

    def _next_of(self, lane: Value) -> None:
        """Do the next task of a lane that this thread has taken, and leave it."""
        b, whole = self.b, self.whole
        number = self.done(lane)  # somebody may have been here since it was looked at
        with b.if_then(self.is_ready(lane, number)):
            self.run(lane, number)
            b.atomic_rmw("xchg", self.place(lane, "done"), b.add(number, whole(1)), "seq_cst")
        b.atomic_rmw("xchg", self.place(lane, "taken"), whole(0), "seq_cst")

    def _wait(self, rounds: Value) -> None:
        """For a moment; after many rounds other threads may have the core."""
        b, whole = self.b, self.whole
        pause(self)
        waited = b.add(b.load(rounds, typ=I64), whole(1))
        b.store(waited, rounds)
        with b.if_then(b.icmp_signed(">", waited, whole(ROUNDS)), likely=False):
            kind = ir.FunctionType(ir.IntType(32), [])
            give = self.load_whole(self.table, _WORDS.index("give way"))
            b.call(b.inttoptr(give, ir.PointerType(kind)), [])


def emit_wave(target: Target) -> ir.Module:
    return _Wave(target).emit()


@cache
def _wave() -> Any:
    return load("wave", object_code(emit_wave(host()), host()))


class Wave:
    """Lanes of as many tasks each. Each task is a chain.

    shares: what threads do, each the same; one of them is enough. at_best: seconds that it took at best so far.
    """

    def __init__(self, lanes: Sequence[Sequence[Chain]], threads: int) -> None:
        self._held, tasks = lanes, len(lanes[0])
        size = (1 + len(lanes)) * _LANE_WORDS
        memory = np.zeros(size + ARRIVALS, np.int64)
        self._table = memory[-memory.ctypes.data // 8 % ARRIVALS :][:size]
        self._links = [np.array([self._words(each) for each in lane], np.int64) for lane in lanes]
        self._table[: len(_WORDS)] = len(lanes), tasks, give_way()
        rows = self._table[_LANE_WORDS:].reshape(len(lanes), len(_LANE), ARRIVALS)
        rows[:, _LANE.index("links"), 0] = [each.ctypes.data for each in self._links]
        self._done = rows[:, _LANE.index("done"), 0]
        self.at_best = math.inf
        self.shares = [Share(_wave(), self._table.ctypes.data, number) for number in range(threads)]

    @staticmethod
    def _words(chain: Chain) -> tuple[int, int, int]:
        share = chain.share
        return share.function.address, share.first, share.second

    def begin(self) -> None:
        """Nothing is done yet."""
        self._done[:] = 0
