"""A step is read once and its equations stay. So it must be the same each time it is run, which is tried here.

What Python draws at random, counts or reads off a clock in a step would be drawn once and stay a constant for ever. It
shows in two ways: a second run gives other equations; or, where a branch happened to go the same way twice, a generator
has moved on or the clock was read.
"""

from __future__ import annotations

import gc
import math
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import BuiltinMethodType, FrameType, FunctionType, MethodType
from typing import Any, NoReturn

from cellwise.errors import UnrepeatableStepError
from cellwise.graph.expr import Node, Source, StepGraph
from cellwise.graph.tracer import Tracer, is_users

_CLOCKS = frozenset(("posix.urandom", "nt.urandom", "posix.getrandom", "_uuid.generate_time_safe"))
_CLOCK_METHODS = frozenset(("datetime.now", "datetime.utcnow", "date.today", "datetime.today"))
_GENERATORS = ("Generator", "RandomState", "Random")
# A step that names one of these may import it.
_SOURCES = frozenset(("random", "numpy", "torch", "secrets"))
_MODULES_OF_CLOCKS = ("time",)


def check_repeatable(first: tuple[Tracer, StepGraph], again: Callable[[], tuple[Tracer, StepGraph]]) -> None:
    """Run the step once more, watched.

    Raises:
        UnrepeatableStepError: the equations are others, or the step drew random numbers or read a clock.
    """
    tracer, graph = first
    watch = _Watch(tracer)
    with _silent(), watch.running():
        second, other = again()
    if watch.asked is not None:
        _refuse(tracer, *watch.asked)
    if _nodes(graph) != _nodes(other):
        _refuse(tracer, *_difference(tracer, second))
    moved = watch.moved()
    if moved is not None:
        _refuse(tracer, f"it draws from {moved}", Source(tracer.code.co_filename, tracer.code.co_firstlineno))


def _refuse(tracer: Tracer, problem: str, where: object) -> NoReturn:
    raise UnrepeatableStepError(cell=tracer.name, problem=problem, where=where)


def _nodes(graph: StepGraph) -> tuple[object, ...]:
    index = {node: number for number, node in enumerate(graph.nodes)}
    nodes = tuple(
        (node.op, node.linear, node.form, repr(node.attribute), tuple(index[i] for i in node.inputs))
        for node in graph.nodes
    )
    return nodes, tuple(index[node] for node in (graph.output, *graph.new_states, *graph.others))


def _difference(first: Tracer, second: Tracer) -> tuple[str, object]:
    """What differs, and the line: that of the first equation that the second run read otherwise."""
    one, two = first.nodes, second.nodes
    at = {node: number for tracer in (first, second) for number, node in enumerate(tracer.nodes)}

    def same(a: Node, b: Node) -> bool:
        inputs = [at[i] for i in a.inputs] == [at[i] for i in b.inputs]
        marks = (a.linear, a.form) == (b.linear, b.form)
        return a.op is b.op and marks and repr(a.attribute) == repr(b.attribute) and inputs

    for a, b in zip(one, two, strict=False):
        if not same(a, b):
            if a.op is b.op and isinstance(a.attribute, float) and isinstance(b.attribute, float):
                return f"a number in it was {a.attribute:g} and then {b.attribute:g}", b.source
            return "its equations were others when it was run again", b.source
    rest = (*one[len(two) :], *two[len(one) :])
    where = rest[0].source if rest else Source(first.code.co_filename, first.code.co_firstlineno)
    return "its equations were others when it was run again", where


# --- what a step asks of the world ------------------------------------------------------------------------------


class _Watch:
    """Sees random numbers drawn and clocks read while a step runs."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        # What was asked of the system or of Python's random, and the line.
        self.asked: tuple[str, Source] | None = None
        # generator's id -> its name, how to ask it where it stands, and where it stood when first seen
        self._states: dict[int, tuple[str, Callable[[], object], object]] = {}
        self._may_draw = True

    @contextmanager
    def running(self) -> Iterator[None]:
        self._remember("Python's random", random)
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if torch is not None and hasattr(torch, "default_generator"):
            self._remember("torch's random numbers", torch.default_generator)
        if numpy is not None and hasattr(numpy, "random"):
            self._remember("numpy.random", numpy.random)
        # A profiler at work is left alone: the comparison and the generators see most without it.
        alone, collects = sys.getprofile() is None, gc.isenabled()
        gc.disable()  # what runs at a collection is none of the step's doing, and may well read a clock
        self._may_draw = not alone
        if alone:
            sys.setprofile(self._event)
        try:
            yield
        finally:
            if alone:
                sys.setprofile(None)
            if collects:
                gc.enable()

    def moved(self) -> str | None:
        """The generator that is no longer where it was, unless the step cannot have drawn from any."""
        if not self._may_draw:  # so another thread did
            return None
        return next((name for name, ask, before in self._states.values() if ask() != before), None)

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            # Not what a dataclass of ours generates, which comes from no file.
            ours = frame.f_globals.get("__name__", "").startswith("cellwise.")
            if not ours and is_users(frame.f_code.co_filename):
                self._look_at(frame)
        elif event == "c_call" and self.asked is None:
            what = _asked(argument)
            if what is not None:
                self.asked = (f"it asks {what}", self._user_line(frame))

    @staticmethod
    def _user_line(frame: FrameType) -> Source:
        """The user's line that led here."""
        at: FrameType | None = frame
        while at is not None and not is_users(at.f_code.co_filename):
            at = at.f_back
        assert at is not None  # the step's own, at last
        return Source(at.f_code.co_filename, at.f_lineno)

    def _look_at(self, frame: FrameType) -> None:
        """Remember the generators that a function of the user's may draw from."""
        names = frame.f_code.co_names
        values = [frame.f_globals[name] for name in names if name in frame.f_globals]
        values += [getattr(type(self._tracer.cell), name, None) for name in names]
        values += frame.f_locals.values()
        others = (value for value in values if value is not self._tracer.cell)
        self._may_draw |= not _SOURCES.isdisjoint(names) or not all(map(_is_harmless, others))
        for value in values:
            value = value.__self__ if isinstance(value, MethodType | BuiltinMethodType) else value
            if type(value).__name__ in _GENERATORS and id(value) not in self._states:
                self._remember(f"a {type(value).__module__}.{type(value).__name__}", value)

    def _remember(self, name: str, generator: Any) -> None:
        ask = _asking(generator)
        if ask is not None:
            self._states[id(generator)] = (name, ask, ask())


def _is_harmless(value: Any) -> bool:
    """Whether nothing can be drawn through a value: numbers, words, stand-ins, cellwise's own, math."""
    if value is math or value is None or isinstance(value, int | float | str):
        return True
    kind = value if isinstance(value, type | FunctionType) else type(value)
    return str(kind.__module__).startswith("cellwise.")


def _asking(generator: Any) -> Callable[[], object] | None:
    """How to ask a generator of Python, numpy or torch where it stands; None if it is none."""
    if hasattr(generator, "getstate"):
        return generator.getstate
    bits: Any = getattr(generator, "bit_generator", None)
    if hasattr(bits, "state"):
        return lambda: _plain(bits.state)
    if hasattr(generator, "manual_seed"):
        return lambda: _plain(generator.get_state().numpy())
    if hasattr(generator, "get_state"):
        return lambda: _plain(generator.get_state(legacy=False))
    return None


def _plain(state: Any) -> object:
    """A state that can be compared: arrays as their bytes."""
    if isinstance(state, dict):
        return tuple((key, _plain(value)) for key, value in state.items())
    return state.tobytes() if hasattr(state, "tobytes") else state


def _asked(function: Any) -> str | None:
    """What a built-in function gives that is another thing each time; None for all others."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__qualname__", "")
    if isinstance(owner, random.Random):
        return "Python's random for a random number"
    module = getattr(function, "__module__", None)
    if f"{module}.{name}" in _CLOCKS:
        return "the system for random bytes"
    if module in _MODULES_OF_CLOCKS or (name in _CLOCK_METHODS and isinstance(owner, type)):
        return "for the time"
    return None


@contextmanager
def _silent() -> Iterator[None]:
    """What the step prints was printed by the first run; other threads print as ever."""
    with redirect_stdout(_Muted(sys.stdout)):
        yield


class _Muted:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
