"""Shares of work done by the threads that torch's own operators run on.

Torch keeps a team of threads (OpenMP), which after each operator wait for the next one in a busy loop, for some
milliseconds. Threads of our own would find the cores taken by that, and take 50 to 100 us to wake; the team is there
within a few. So a call of ours goes to the team of the thread that makes it, as one of torch's would, by the function
that compilers call for a parallel region: `GOMP_parallel`, of the library that torch itself is linked to (GNU's; LLVM's
and Intel's have it too). Where there is none, and in a forked process, whose team has no threads any more, `threads.py`
has some of its own.

Who of the team does what is decided when a thread comes for it, so it does not matter how many come, or when. Only what
is compiled runs in a team: no thread of it holds the interpreter's lock or waits for it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from llvmlite import ir

from cellwise.backends.cpu.code import I64, Code, Value
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target, host

_F64 = ir.DoubleType()
# Numbers between what threads change and what they read: two lines of a cache.
_APART = 16
# What a table begins with: how many shares were taken, and when a thread first found none left; on lines of their own
# how many there are, the address of the clock, and for how many seconds (a float64) a first thread waits for a second.
_WORDS = ("taken", "free", "count", "clock", "patience")
_AT = {name: place if place < 2 else _APART + place - 2 for place, name in enumerate(_WORDS)}
_FIRST = 2 * _APART
_SHARE = 3  # words: a function and its two arguments
_ALONE = 2  # of the shares of a pair, what does both
_CLOSED = 4  # taken: so many and more, if nobody came


@dataclass(frozen=True)
class Share:
    """A compiled function, one that `load` returned, and the two addresses that it is given."""

    function: Any
    first: int
    second: int

    def __call__(self) -> None:
        self.function(self.first, self.second)


class Times(NamedTuple):
    """Seconds from the beginning until a thread found nothing left to do, and from there until all were done."""

    worked: float
    idle: float


class _Team(Code):
    """Emits what every thread of a team does, given the table."""

    def __init__(self, name: str, target: Target) -> None:
        super().__init__(name, 8, target)
        self.table, _ = self.function.args

    def place(self, name: str) -> Value:
        return self.at(self.table, self.whole(_AT[name]), I64)

    def take(self) -> Value:
        """The number of the next share; from now on it is this thread's."""
        return self.b.atomic_rmw("add", self.place("taken"), self.whole(1), "seq_cst")

    def now(self) -> Value:
        clock = self.load_whole(self.table, _AT["clock"])
        return self.b.call(self.b.inttoptr(clock, ir.PointerType(ir.FunctionType(_F64, []))), [])

    def run(self, number: Value) -> None:
        b, whole = self.b, self.whole
        start = b.add(whole(_FIRST), b.mul(number, whole(_SHARE)))
        function, *given = (self.load_whole(self.table, b.add(start, whole(i))) for i in range(_SHARE))
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        b.call(b.inttoptr(function, ir.PointerType(kind)), given)


def emit_shares(target: Target) -> ir.Module:
    """void shares(int64 *table): take shares and do them, until none is left."""
    code = _Team("shares", target)
    b = code.b
    look, body, end = (b.append_basic_block(name) for name in ("look", "share", "end"))
    b.branch(look)
    b.position_at_end(look)
    number = code.take()
    b.cbranch(b.icmp_signed("<", number, code.load_whole(code.table, _AT["count"])), body, end)
    b.position_at_end(body)
    code.run(number)
    b.branch(look)
    b.position_at_end(end)
    now = b.bitcast(code.now(), I64)
    b.cmpxchg(code.place("free"), code.whole(0), now, "seq_cst", "seq_cst")  # the first one's stays
    b.ret_void()
    return code.module


def emit_pair(target: Target) -> ir.Module:
    """void pair(int64 *table): do two shares that wait for each other, or the third if no second thread comes soon."""
    code = _Team("pair", target)
    b, whole = code.b, code.whole
    first, second, end = (b.append_basic_block(name) for name in ("first", "second", "end"))
    look, again, late, alone, both = (
        b.append_basic_block(name) for name in ("look", "again", "late", "alone", "both")
    )
    number = code.take()
    b.cbranch(b.icmp_signed("==", number, whole(0)), first, second)
    b.position_at_end(first)
    limit = b.fadd(code.now(), b.load(code.at(code.table, whole(_AT["patience"]), I64), typ=_F64))
    b.branch(look)
    b.position_at_end(look)
    taken = b.load_atomic(code.place("taken"), "acquire", align=8, typ=I64)
    b.cbranch(b.icmp_signed(">", taken, whole(1)), both, again)
    b.position_at_end(again)
    b.cbranch(b.fcmp_ordered("<", code.now(), limit), look, late)
    b.position_at_end(late)
    found = b.cmpxchg(code.place("taken"), whole(1), whole(_CLOSED), "seq_cst", "seq_cst")
    b.cbranch(b.extract_value(found, 1), alone, both)
    b.position_at_end(alone)
    code.run(whole(_ALONE))
    b.branch(end)
    b.position_at_end(both)
    code.run(whole(0))
    b.branch(end)
    b.position_at_end(second)
    with b.if_then(b.icmp_signed("==", number, whole(1))):
        code.run(whole(1))
    b.branch(end)
    b.position_at_end(end)
    b.ret_void()
    return code.module


class Team:
    """The threads that torch's operators run on, as the thread sees them that asks."""

    def __init__(self, parallel: Any, clock: Any) -> None:
        self._parallel, self._clock = parallel, clock
        self._parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        self._parallel.restype = None
        self._clock.argtypes, self._clock.restype = [], ctypes.c_double
        self._clock_address = ctypes.cast(clock, ctypes.c_void_p).value or 0
        self._shares, self._pair = (
            load(name, object_code(emit(host()), host()))
            for name, emit in (("shares", emit_shares), ("pair", emit_pair))
        )

    def run(self, shares: Sequence[Share]) -> Times:
        """Do all of them, and return when all are done."""
        table = self._table(shares, len(shares))
        start, end = self._region(self._shares, table)
        free = ctypes.c_double.from_buffer(table, 8 * _AT["free"]).value
        return Times(free - start, end - free)

    def pair(self, shares: Sequence[Share], alone: Share, patience: float) -> tuple[float, bool]:
        """Do two shares that wait for each other; or `alone`, where no second thread comes within so many seconds.

        Returns:
            The seconds that it took, and whether two threads did it.
        """
        table = self._table([*shares, alone], 2, patience)
        start, end = self._region(self._pair, table)
        return end - start, table[_AT["taken"]] < _CLOSED

    def _table(self, shares: Sequence[Share], count: int, patience: float = 0.0) -> Any:
        words = [word for each in shares for word in (each.function.address, each.first, each.second)]
        table = (ctypes.c_int64 * (_FIRST + len(words)))()
        table[_FIRST:] = words
        table[_AT["count"]], table[_AT["clock"]] = count, self._clock_address
        ctypes.c_double.from_buffer(table, 8 * _AT["patience"]).value = patience
        return table

    def _region(self, function: Any, table: Any) -> tuple[float, float]:
        """Have every thread of the team call it: when that began and ended."""
        # Always as many threads as torch asks for: with others the library would end some, or make new ones.
        threads, start = torch.get_num_threads(), self._clock()
        self._parallel(function.address, ctypes.addressof(table), threads, 0)
        return start, self._clock()


class _Process:
    forked = False


def team() -> Team | None:
    """That of this process; None if torch has no threads of this kind, or a fork has left them behind."""
    return None if _Process.forked else _team()


@cache
def _team() -> Team | None:
    try:
        library: Any = ctypes.CDLL(torch._C.__file__)  # with all that it is linked to
        return Team(library.GOMP_parallel, library.omp_get_wtime)
    except (AttributeError, OSError):
        return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: setattr(_Process, "forked", True))
