"""Kernels that two threads share by units: each does its part of the units of all rows, and waits after every stage.

Few rows cannot be shared well: one not at all, and of two, three or four each reads all weights for half as many rows.
Half of the units are half of the weights, which then may fit into the caches of the two cores though all of them do not
fit into one. The sums are those of one thread, bit for bit.

A thread waits in a loop, since the other is microseconds away. Where it is not, because another process has its core,
the loop gives way (`sched_yield`), and the first thread ends the sharing.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

from llvmlite import ir

from cellwise.backends.compiled.compiler import RunShape
from cellwise.backends.cpu.code import I64, Code, Value
from cellwise.backends.cpu.kernel import Emitter
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.tiles import TILES
from cellwise.graph import StepGraph
from cellwise.plan.program import Program

# The last of the words of `sizes`: this thread's number, how many there are, where they count arrivals, and the address
# of a function that gives way to other threads.
ARRIVALS = 16  # numbers between what is counted: two lines of a cache
UNIT_SIZES = ("thread", "threads", "arrivals", "give way")
# Rounds of the loop before it gives way and the first thread means to go on alone: about 0.2 ms.
ROUNDS = 10_000
# Parts that a thread has done, and this, once it has left.
_LEFT = 2**61
# More rows are better shared by rows; and waiting, which costs 1 to 2 us a step, must be little beside the work
# (docs/decisions/0068, 0077). Weights of a step, and those read in all steps.
_MOST_ROWS, _LEAST_WEIGHTS, _LEAST_READ = 5, 25_000, 8_000_000
_MOST_OF_MANY = 3  # rows, where more than two threads could have a row each
SUFFIX = "_by_units"


def in_units(program: Program, shape: RunShape, threads: int) -> bool:
    """Whether two of so many threads are to share such calls by units: not of programs that sum over these."""
    sizes, schedule = shape.sizes, shape.schedule
    lengths = sizes.input, sizes.hidden, sizes.output
    return not (program.rows or shape.resets) and is_worth_it(
        program.graph, lengths, schedule.steps, schedule.batch, threads
    )


def is_worth_it(
    graph: StepGraph, lengths: tuple[int, int, int], steps: int, batch: int, threads: int
) -> bool:
    """Whether two threads that share units are quicker than so many that share rows.

    Args:
        lengths: D, H and the outputs of a step.
    """
    # Half of the units of four rows take longer than a row for each of four threads.
    if threads < 2 or (threads > 2 and batch > _MOST_OF_MANY):
        return False
    width, hidden, output = lengths
    weights = hidden * (len(graph.input_gates) * width + len(graph.state_gates) * output)
    return batch <= _MOST_ROWS and weights >= _LEAST_WEIGHTS and steps * weights >= _LEAST_READ


class UnitsEmitter(Emitter):
    """Emits the kernel of a program that two threads share by units.

    The first thread decides. Where it waits in vain for a while, it asks the second to leave after what it is
    doing, does what the second left undone of this part, and goes on alone: so a core that is taken costs one wait.
    """

    def __init__(self, program: Program, element_bytes: int, target: Target) -> None:
        super().__init__(program, element_bytes, target)
        self.function.name = f"{self.function.name}{SUFFIX}"
        # Whose share is done, of how many: the third of two has none. Then how many parts were begun, and whether the
        # share that is done is the last that two have.
        self._state = {name: self.b.alloca(I64, name=name) for name in ("who", "of", "parts", "last")}

    @property
    def sizes(self) -> tuple[str, ...]:
        return (*super().sizes, *UNIT_SIZES)

    def _take(self, pointers: Value) -> None:
        super()._take(pointers)
        self._set(who=self.size["thread"], of=self.size["threads"], parts=self.whole(0), last=self.whole(0))
        self._arrivals = self.b.inttoptr(self.size["arrivals"], ir.PointerType(), name="arrivals")

    def _set(self, **values: Value) -> None:
        for name, value in values.items():
            self.b.store(value, self._state[name])

    def _get(self, name: str) -> Value:
        return self.load_whole(self._state[name], 0)

    def share(self, tiles: Value) -> tuple[Value, Value]:
        b, whole = self.b, self.whole
        pairs = b.sdiv(b.add(tiles, whole(TILES - 1)), whole(TILES))

        def edge(number: Value) -> Value:
            tile = b.mul(b.sdiv(b.mul(pairs, number), self._get("of")), whole(TILES))
            return b.select(b.icmp_signed("<", tile, tiles), tile, tiles)

        return edge(self._get("who")), edge(b.add(self._get("who"), whole(1)))

    def part(self, name: str, work: Callable[[], None]) -> None:
        b, whole = self.b, self.whole
        body, meet, after = (b.append_basic_block(f"{name}.{each}") for each in ("part", "meet", "met"))
        self._set(parts=b.add(self._get("parts"), whole(1)))
        b.branch(body)
        b.position_at_end(body)
        work()
        # Alone, gone, or with the other's share done too: there is nobody to wait for.
        waits = b.and_(
            b.icmp_signed("<", self._get("who"), self._get("of")),
            b.icmp_signed(">", self._get("of"), whole(1)),
        )
        waits = b.and_(waits, b.icmp_signed("==", self._get("last"), whole(0)))
        done = b.append_basic_block(f"{name}.done")
        b.cbranch(waits, meet, done)
        b.position_at_end(meet)
        theirs = self._meet(name)
        self._leave_if_asked()
        has_left = b.icmp_signed(">=", theirs, whole(_LEFT))
        undone = b.icmp_signed("<", b.sub(theirs, whole(_LEFT)), self._get("parts"))
        with b.if_then(has_left, likely=False):
            # The other one's share of this part, if that is undone, is the last of two.
            self._set(who=whole(1), last=whole(1))
            b.cbranch(undone, body, done)
        b.branch(after)
        b.position_at_end(done)
        with b.if_then(b.icmp_signed("!=", self._get("last"), whole(0)), likely=False):
            self._set(who=whole(0), of=whole(1), last=whole(0))
        b.branch(after)
        b.position_at_end(after)

    def _place(self, number: Value | int) -> Value:
        """Where a thread counts its parts, on a line of its own; and behind both, where the first asks to leave."""
        number = self.whole(number) if isinstance(number, int) else number
        return self.at(self._arrivals, self.b.mul(number, self.whole(ARRIVALS)), I64)

    def _meet(self, name: str) -> Value:
        """Say how many parts this thread has done, and wait until the other has done as many: how many those are."""
        b, whole = self.b, self.whole
        parts, thread = self._get("parts"), self.size["thread"]
        b.atomic_rmw("xchg", self._place(thread), parts, "seq_cst")
        place, start = self._place(b.sub(whole(1), thread)), b.block
        look, again, longer, after = (
            b.append_basic_block(f"{name}.{each}") for each in ("look", "again", "longer", "here")
        )
        b.branch(look)
        b.position_at_end(look)
        rounds = b.phi(I64, "rounds")
        rounds.add_incoming(whole(0), start)
        theirs = b.load_atomic(place, "acquire", align=8, typ=I64)
        b.cbranch(b.icmp_signed("<", theirs, parts), again, after)
        b.position_at_end(again)
        pause(self)
        following = b.add(rounds, whole(1))
        rounds.add_incoming(following, again)
        b.cbranch(b.icmp_signed("<", following, whole(ROUNDS)), look, longer)
        b.position_at_end(longer)
        with b.if_then(b.icmp_signed("==", thread, whole(0))):
            b.atomic_rmw("xchg", self._place(2), whole(1), "seq_cst")
        kind = ir.FunctionType(ir.IntType(32), [])
        b.call(b.inttoptr(self.size["give way"], ir.PointerType(kind)), [])
        rounds.add_incoming(following, b.block)
        b.branch(look)
        b.position_at_end(after)
        return theirs

    def _leave_if_asked(self) -> None:
        b, whole = self.b, self.whole
        asked = b.load_atomic(self._place(2), "acquire", align=8, typ=I64)
        is_second = b.icmp_signed("==", self.size["thread"], whole(1))
        with b.if_then(b.and_(is_second, b.icmp_signed("!=", asked, whole(0))), likely=False):
            b.atomic_rmw("xchg", self._place(1), b.add(self._get("parts"), whole(_LEFT)), "seq_cst")
            self._set(who=whole(2))


def pause(code: Code) -> None:
    """Tell the core that this is a waiting loop."""
    x86 = "86" in code.target.triple.partition("-")[0]
    name, kinds = ("llvm.x86.sse2.pause", []) if x86 else ("llvm.aarch64.hint", [ir.IntType(32)])
    kind = ir.FunctionType(ir.VoidType(), kinds)
    function = code.module.globals.get(name) or ir.Function(code.module, kind, name)
    code.b.call(function, [ir.Constant(each, 1) for each in kinds])


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
