"""What a step asks of the driver and of torch's CUDA streams, both played by somebody who takes notes."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from emulated import Emulated, EmulatedCompiler, EmulatedLauncher, EmulatedMachine
from recorded import Graph
from steps import by_calls, drawn, made
from torch import Tensor

from cellwise import torch_internals
from cellwise.backends import registry
from cellwise.backends.cuda import driver
from cellwise.backends.cuda.driver import Context, CudaMachine
from cellwise.backends.reference.loop import run_direction

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")


class Played:
    """A device that does at once what it is asked for, or keeps it for a graph, and takes notes of what matters.

    now: the stream that work goes to. capturing: the graph of each stream that is being recorded.
    """

    def __init__(self) -> None:
        self.now, self.notes = 0, list[tuple[Any, ...]]()
        self.capturing: dict[int, Graph] = {}
        self.graphs: dict[int, Graph] = {}
        self.numbers = itertools.count(100)

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
    mark, settle = EmulatedMachine.mark, EmulatedMachine.settle

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
        (driver, "library", lambda: found.library),
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
    driver._recording.cache_clear()
    yield found
    driver._recording.cache_clear()


@pytest.mark.parametrize("cell", ["lstm", "time-aware-lstm"])
def test_steps_on_two_streams_and_in_a_graph_of_the_callers(cell: str, played: Played) -> None:
    layer = made(cell, 17, {"num_layers": 2}, backend="played")
    x, beside = drawn(layer, 24, 2)
    stream, found, now, held = layer.stream(2), [], x[0].clone(), list[Tensor]()

    def step(t: int) -> None:
        found.append(stream(x[t], **{name: each[t] for name, each in beside.items()}))

    for t in range(18):
        played.now = 0 if t < 7 else 5
        step(t)
    state = stream.state
    graph = CapturedGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    held.append(stream(now, **{name: each[18] for name, each in beside.items()}))
    graph.capture_end()
    stream.state = state
    now.copy_(x[18])
    graph.graph.replay()
    found.append(held[0].clone())
    played.now = 0
    for t in range(19, 24):
        step(t)
    torch.testing.assert_close(torch.stack(found), by_calls(layer, x, beside), atol=1e-5, rtol=1e-5)

    of = [[note for note in played.notes if note[0] == kind] for kind in ("record", "replay", "wait", "keep")]
    records, replays, waits, keeps = of
    own = [on for _, on, _ in records if on != 5]
    # Each of two streams has one for recording, on which the first graph lends its memory to two others.
    assert len(own) == 6 and len(set(own)) == 2
    assert all(len({shared for _, on, shared in records if on == each}) == 1 for each in set(own))
    assert {stream for _, _, stream in replays} == {0, 5} and len(replays) == 3 + 7 + 5
    # A graph waits to be recorded for those at work, and to be replayed; steps wait where streams change.
    assert [w for w in waits if own[0] in w] == [("wait", own[0], 0), ("wait", 0, own[0])] * 2
    assert [w for w in waits if w[1:] in ((5, 0), (0, 5))] == [("wait", 5, 0), ("wait", 0, 5)]
    assert {on for _, on in keeps} == {0, 5}


def test_threads_that_record_at_once_take_turns(played: Played) -> None:
    machine, seen, begun = Machine(), [], threading.Event()

    def work() -> None:
        seen.append(len(played.capturing))
        begun.wait(0.05)

    threads = [threading.Thread(target=machine.record, args=(work,)) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert seen == [1, 1, 1] and not played.capturing


def test_a_release_of_torch_without_handles_of_graphs_replays_them(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(CapturedGraph, "raw_cuda_graph_exec")
    monkeypatch.setattr(CapturedGraph, "replay", lambda self: self.graph.replay(), raising=False)
    x = torch.zeros(2)
    again = Machine().record(lambda: x.add_(1))
    again()
    again()
    assert x.tolist() == [2, 2] and not any(kind == "replay" for kind, *_ in played.notes)
