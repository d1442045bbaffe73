"""Kernels that two threads share by units: each does its part of the units of all rows, and waits after every stage.

Few rows cannot be shared well: one not at all, and of two, three or four each reads all weights for half as many rows.
Half of the units are half of the weights, which then may fit into the caches of the two cores though all of them do not
fit into one. The sums are those of one thread, bit for bit.

A thread waits in a loop, since the other is microseconds away. Where it is not, because another process has its core,
the loop gives way (`sched_yield`) each time round.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from llvmlite import ir

from cellwise.backends.compiled.compiler import RunShape
from cellwise.backends.cpu.code import I64, Value
from cellwise.backends.cpu.kernel import Emitter
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES
from cellwise.plan.program import Program, StorageClass

# The last of the words of `sizes`: this thread's number, how many there are, where they count arrivals, and the address
# of a function that gives way to other threads.
ARRIVALS = 16  # numbers between those of the two threads: two lines of a cache
UNIT_SIZES = ("thread", "threads", "arrivals", "give way")
# Rounds of the loop before it gives way: about 40 us.
_ROUNDS = 2000
# More rows are better shared by rows; and waiting, which costs 1 to 2 us a step, beside 100 us to begin, must be little
# beside the work (docs/decisions/0068). Weights of a step, and those read in all steps.
_MOST_ROWS, _LEAST_WEIGHTS, _LEAST_READ = 5, 250_000, 16_000_000
_OF_A_STEP = (StorageClass.PER_STEP, StorageClass.PER_CHUNK)
SUFFIX = "_by_units"


def in_units(program: Program, shape: RunShape) -> bool:
    """Whether two threads are to share such calls by units; not programs that sum over the units of a row."""
    graph, sizes, schedule = program.graph, shape.sizes, shape.schedule
    weights = sizes.hidden * (len(graph.input_gates) * sizes.input + len(graph.state_gates) * sizes.output)
    is_worth_it = (
        schedule.batch <= _MOST_ROWS and weights >= _LEAST_WEIGHTS and schedule.steps * weights >= _LEAST_READ
    )
    return is_worth_it and not (program.rows or shape.resets)


class UnitsEmitter(Emitter):
    """Emits the kernel of a program that threads share by units."""

    def __init__(self, program: Program, element_bytes: int, target: Target) -> None:
        super().__init__(program, element_bytes, target)
        self.function.name = f"{self.function.name}{SUFFIX}"

    @property
    def sizes(self) -> tuple[str, ...]:
        return (*super().sizes, *UNIT_SIZES)

    def _steps(self, first: Value, end: Value) -> None:
        if not hasattr(self, "_expected"):
            self._expected = self.b.alloca(I64, name="expected")
            self.b.store(self.whole(0), self._expected)
        super()._steps(first, end)

    def share(self, tiles: Value) -> tuple[Value, Value]:
        b, whole = self.b, self.whole
        pairs = b.sdiv(b.add(tiles, whole(TILES - 1)), whole(TILES))

        def edge(number: Value) -> Value:
            tile = b.mul(b.sdiv(b.mul(pairs, number), self.size["threads"]), whole(TILES))
            return b.select(b.icmp_signed("<", tile, tiles), tile, tiles)

        thread = self.size["thread"]
        return edge(thread), edge(b.add(thread, whole(1)))

    def _is_awaited(self, number: int) -> bool:
        """Whether a thread may begin the stage after this one only when all have done this one."""
        stages = self.program.stages
        stage, following = stages[number], stages[(number + 1) % len(stages)]
        if following.terms:  # it reads units of others
            return True
        # Nor may it write what others are still reading. From one step to the next most rows are others.
        is_last = number == len(stages) - 1
        read = {term.operand.buffer for term in stage.terms}
        written = {slot.buffer for _, slot in following.writes}
        return any(not is_last or each.storage not in _OF_A_STEP for each in read & written)

    def stage_is_done(self, number: int) -> None:
        """Say that this thread has come so far, and wait until the other has. Each counts on a line of its own, which
        so goes to the other core once.
        """
        b, whole = self.b, self.whole
        if not self._is_awaited(number):
            return
        arrivals = b.inttoptr(self.size["arrivals"], ir.PointerType(), name="arrivals")
        expected = b.add(self.load_whole(self._expected, 0), whole(1))
        b.store(expected, self._expected)
        mine, other = self.size["thread"], b.sub(whole(1), self.size["thread"])
        b.atomic_rmw("xchg", self.at(arrivals, b.mul(mine, whole(ARRIVALS)), I64), expected, "release")
        theirs = self.at(arrivals, b.mul(other, whole(ARRIVALS)), I64)
        start = b.block
        look, again, yields, after = (
            b.append_basic_block(name) for name in ("look", "again", "give_way", "all_are_here")
        )
        b.cbranch(b.icmp_signed(">", self.size["threads"], whole(1)), look, after)
        b.position_at_end(look)
        rounds = b.phi(I64, "rounds")
        rounds.add_incoming(whole(0), start)
        found = b.load_atomic(theirs, "acquire", align=8, typ=I64)
        b.cbranch(b.icmp_signed("<", found, expected), again, after)
        b.position_at_end(again)
        self._pause()
        following = b.add(rounds, whole(1))
        rounds.add_incoming(following, again)
        rounds.add_incoming(following, yields)
        b.cbranch(b.icmp_signed("<", following, whole(_ROUNDS)), look, yields)
        b.position_at_end(yields)
        kind = ir.FunctionType(ir.IntType(32), [])
        b.call(b.inttoptr(self.size["give way"], ir.PointerType(kind)), [])
        b.branch(look)
        b.position_at_end(after)

    def _pause(self) -> None:
        """Tell the core that this is a waiting loop."""
        x86 = "86" in self.target.triple.partition("-")[0]
        name, kinds = ("llvm.x86.sse2.pause", []) if x86 else ("llvm.aarch64.hint", [ir.IntType(32)])
        kind = ir.FunctionType(ir.VoidType(), kinds)
        function = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        self.b.call(function, [ir.Constant(each, 1) for each in kinds])


def emit_by_units(program: Program, element_bytes: int, target: Target) -> ir.Module:
    """The kernel of a program as an LLVM module, without the routines that it calls."""
    return UnitsEmitter(program, element_bytes, target).emit()


@cache
def give_way() -> int:
    """The address of the system's function that gives the core to another thread for a moment."""
    if sys.platform == "win32":
        function = ctypes.windll.kernel32.SwitchToThread
    else:
        function = ctypes.CDLL(None).sched_yield
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address
    return address
