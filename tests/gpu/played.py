"""A driver and torch's CUDA streams, played by somebody who takes notes; kernels and products are the emulation's."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from emulated import Emulated, EmulatedCompiler, EmulatedLauncher, EmulatedMachine
from recorded import Graph
from torch import Tensor

from cellwise import torch_internals
from cellwise.backends import registry
from cellwise.backends.cuda import driver, libcuda
from cellwise.backends.cuda.driver import Context, CudaMachine
from cellwise.backends.reference.loop import run_direction


class Played:
    """A device that does at once what it is asked for, or keeps it for a graph, and takes notes of what matters.

    now: the stream that work goes to. capturing: the graph of each stream that is being recorded.
    """

    def __init__(self) -> None:
        self.now, self.notes = 0, list[tuple[Any, ...]]()
        self.capturing: dict[int, Graph] = {}
        self.graphs: dict[int, Graph] = {}
        self.numbers, self.modes = itertools.count(100), threading.local()

    def do(self, work: Any) -> int:
        graph = self.capturing.get(self.now)
        if graph is None:
            work()
        else:
            graph.work.append(work)
        return 0

    # --- the driver

    @property
    def library(self) -> SimpleNamespace:
        return SimpleNamespace(
            cuMemcpyAsync=self.copy,
            cuGraphLaunch=self.replay,
            cuStreamCreate=self.make_stream,
            cuCtxSetCurrent=lambda _: 0,
            cuThreadExchangeStreamCaptureMode=self.exchange,
        )

    def copy(self, to: int, given: int, size: int, stream: int) -> int:
        assert stream == self.now
        return self.do(lambda: ctypes.memmove(to, given, size))

    def replay(self, graph: ctypes.c_void_p, stream: int) -> int:
        assert stream == self.now and not self.capturing
        self.notes.append(("replay", graph.value, stream))
        self.graphs[graph.value or 0].replay()
        return 0

    def make_stream(self, found: Any, flags: int) -> int:
        found._obj.value = next(self.numbers)
        return 0

    def exchange(self, mode: Any) -> int:
        """Each thread has a mode of its own: 0, of which a recording forbids what is unsafe, or 2, in which it may."""
        before = getattr(self.modes, "mode", 0)
        self.modes.mode, mode._obj.value = mode._obj.value, before
        return 0

    @property
    def is_relaxed(self) -> bool:
        return getattr(self.modes, "mode", 0) == 2

    # --- torch.cuda

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.now = self.now, stream.cuda_stream
        yield
        self.now = before


class Stream:
    played: Played

    def __init__(self, number: int, device: Any = None) -> None:
        self.cuda_stream = number

    def synchronize(self) -> None:
        assert self.cuda_stream not in self.played.capturing
        self.played.notes.append(("synchronize", self.cuda_stream))

    def wait_stream(self, other: Stream) -> None:
        self.played.notes.append(("wait", self.cuda_stream, other.cuda_stream))

    def wait_event(self, event: Event) -> None:
        self.played.notes.append(("wait", self.cuda_stream, event.stream))


class Event:
    stream = -1

    def record(self, stream: Stream) -> None:
        assert not Stream.played.capturing
        self.stream = stream.cuda_stream


class CapturedGraph:
    def __init__(self) -> None:
        self.graph, self.number = Graph(), next(Stream.played.numbers)

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        played = Stream.played
        assert played.now not in played.capturing and capture_error_mode == "thread_local"
        self.shared = self.number if pool is None else pool
        played.notes.append(("record", played.now, self.shared))
        played.capturing[played.now] = self.graph
        self.graph.__enter__()

    def capture_end(self) -> None:
        self.graph.__exit__(None, None, None)
        del Stream.played.capturing[Stream.played.now]
        Stream.played.graphs[self.number] = self.graph

    def pool(self) -> int:
        return self.shared

    def raw_cuda_graph_exec(self) -> int:
        return self.number


class Machine(CudaMachine):
    """Of the driver's machine all that a step asks; kernels and products are the emulation's."""

    build, multiply = EmulatedMachine.build, EmulatedMachine.multiply
    mark = EmulatedMachine.mark

    def __init__(self) -> None:
        EmulatedMachine.__init__(self)  # type: ignore[arg-type]
        self._torch_device = torch.device("cpu", 0)


class Compiler(EmulatedCompiler):
    made = None

    def machine(self, device: torch.device) -> Machine:
        Compiler.made = Compiler.made or Machine()
        return Compiler.made


class OnADriver(Emulated):
    name = "played"
    _made = Compiler()


PLAYED = OnADriver(run_direction)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    found = Stream.played = Played()
    Compiler.made = None
    context = Context.__new__(Context)
    context.index, context._held = 0, ctypes.c_void_p(1)
    launch = EmulatedLauncher.launch
    for module, name, value in (
        (registry, "BACKENDS", (*registry.BACKENDS, PLAYED)),
        (libcuda, "library", lambda: found.library),
        (driver, "context_of", lambda _: context),
        (EmulatedLauncher, "launch", lambda *given: found.do(lambda: launch(*given)) and None),
        (torch_internals, "current_cuda_device", lambda: 0),
        (torch_internals, "current_cuda_stream", lambda _: found.now),
        (torch.cuda, "is_current_stream_capturing", lambda: found.now in found.capturing),
        (torch.cuda, "current_stream", lambda _: Stream(found.now)),
        (torch.cuda, "ExternalStream", Stream),
        (torch.cuda, "stream", found.stream),
        (torch.cuda, "device", lambda _: nullcontext()),
        (torch.cuda, "Event", Event),
        (torch.cuda, "CUDAGraph", CapturedGraph),
        (Tensor, "record_stream", lambda self, stream: found.notes.append(("keep", stream.cuda_stream))),
    ):
        monkeypatch.setattr(module, name, value)
    caches = driver._recording, driver._outside_of_graphs
    for each in caches:
        each.cache_clear()
    yield found
    for each in caches:
        each.cache_clear()
