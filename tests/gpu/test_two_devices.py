"""Two GPUs in one process, both made up: each has its own of everything, and is asked while it is the current one."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from emulated import Emulated
from torch import Tensor

from cellwise import Recurrent, torch_internals
from cellwise.backends import registry
from cellwise.backends.cuda import driver, libcuda, tuned
from cellwise.backends.cuda.driver import CudaMachine, machine_of
from cellwise.backends.cuda.layout import Layout
from cellwise.backends.reference.loop import run_direction
from cellwise.errors import InputError

DEVICES = [torch.device("cuda", index) for index in (0, 1)]


class Two:
    """A driver of two devices. Each thread has a current one, of which torch and the driver know."""

    def __init__(self) -> None:
        self._threads, self.notes, self._numbers = (
            threading.local(),
            list[tuple[Any, ...]](),
            itertools.count(50),
        )
        self.streams = {0: 7, 1: 8}  # of each device that which torch works on
        self.capturing = set[int]()
        for name in ("cuLaunchKernel", "cuMemsetD32Async", "cuMemcpyAsync", "cuGraphLaunch"):
            setattr(self, name, lambda *given, name=name: self.note(name, given))

    @property
    def current(self) -> int:
        return getattr(self._threads, "current", 0)

    @contextmanager
    def device(self, device: torch.device | int) -> Iterator[None]:
        before = self.current
        self._threads.current = device if isinstance(device, int) else device.index
        yield
        self._threads.current = before

    @contextmanager
    def stream(self, stream: SimpleNamespace) -> Iterator[None]:
        with self.device(stream.device):
            before, self.streams[self.current] = self.streams[self.current], stream.cuda_stream
            yield
            self.streams[self.current] = before

    def note(self, name: str, given: tuple[Any, ...]) -> int:
        (stream,) = {each for each in given if each in self.streams.values()}
        self.notes.append((name, self.current, stream))
        return 0

    def cuDevicePrimaryCtxRetain(self, found: Any, index: int) -> int:  # noqa: N802  the driver's name
        found._obj.value = 1000 + index
        return 0

    def cuCtxSetCurrent(self, context: ctypes.c_void_p) -> int:  # noqa: N802
        assert context.value == 1000 + self.current
        return 0

    def cuDeviceGetAttribute(self, found: Any, attribute: int, index: int) -> int:  # noqa: N802
        found._obj.value = 99 * 1024 if attribute == 97 else index
        return 0

    def cuModuleLoadData(self, module: Any, code: bytes) -> int:  # noqa: N802
        module._obj.value = next(self._numbers)
        self.notes.append(("load", self.current, code))
        return 0

    def cuModuleGetFunction(self, function: Any, module: ctypes.c_void_p, name: bytes) -> int:  # noqa: N802
        function._obj.value = module.value
        return 0

    def cuFuncGetAttribute(self, *_: Any) -> int:  # noqa: N802
        return 0

    def cuThreadExchangeStreamCaptureMode(self, _: Any) -> int:  # noqa: N802
        return 0

    def cuStreamCreate(self, found: Any, flags: int) -> int:  # noqa: N802
        found._obj.value = next(self._numbers)
        return 0

    def made(self, number: int, device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(cuda_stream=number, device=device.index, synchronize=lambda: None)


def on_the_host(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Memory of a device's, or the device's to write to, is the host's."""

    def made(
        *size: Any, pin_memory: bool = False, device: torch.device | None = None, **given: Any
    ) -> Tensor:
        return make(*size, **given)

    return made


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    found = Two()
    properties = [
        SimpleNamespace(name="a GPU", major=9, minor=index, multi_processor_count=132) for index in (0, 1)
    ]
    for module, name, value in (
        (libcuda, "library", lambda: found),
        (driver, "machine_code", lambda source, capability: f"{source} for {capability}".encode()),
        (torch_internals, "current_cuda_device", lambda: found.current),
        (torch_internals, "current_cuda_stream", lambda device: found.streams[device]),
        (torch.cuda, "is_current_stream_capturing", lambda: found.current in found.capturing),
        (torch.cuda, "get_device_properties", lambda device: properties[device.index]),
        (torch.cuda, "device", found.device),
        (torch.cuda, "stream", found.stream),
        (torch.cuda, "ExternalStream", found.made),
        (torch, "zeros", on_the_host(torch.zeros)),
        (torch, "empty", on_the_host(torch.empty)),
    ):
        monkeypatch.setattr(module, name, value)
    caches = machine_of, driver.context_of, driver._outside_of_graphs
    for each in caches:
        each.cache_clear()
    yield found
    for each in caches:
        each.cache_clear()


def test_each_device_is_asked_while_it_is_the_current_one(two: Two) -> None:
    machines = [machine_of(device) for device in DEVICES]
    rows = torch.zeros(4, 4)
    graph: Any = SimpleNamespace(raw_cuda_graph_exec=lambda: 77)
    for current in (0, 1):
        with two.device(current):
            for index, machine in enumerate(machines):
                two.notes.clear()
                machine.build("text", 0, ()).launch((1, 1), 32, [rows, 3], False)
                machine.mark(rows)
                machine.copy(rows, rows)
                driver.Replay(graph, driver.context_of(DEVICES[index]))()
                calls = [note for note in two.notes if note[0] != "load"]
                assert [note[1:] for note in calls] == [
                    (index, two.streams[index])
                ] * 4 and two.current == current
    two.capturing.add(1)
    assert [machine.stream() for machine in machines] == [7, None] and two.current == 0


def test_devices_have_nothing_in_common(two: Two) -> None:
    first, second = machines = [machine_of(device) for device in DEVICES]
    assert first.device != second.device and not first.device.together and second.device.together
    kernels = [machine.build("text", 0, ()) for machine in machines]
    assert two.notes == [("load", 0, b"text for 90"), ("load", 1, b"text for 91")]
    assert kernels[0] is first.build("text", 0, ()) and kernels[0]._function != kernels[1]._function
    first.late.fill_(1)
    second.check()
    zeros = [
        machine.zeros((2,), torch.float32, device) for machine, device in zip(machines, DEVICES, strict=True)
    ]
    assert zeros[0].data_ptr() != zeros[1].data_ptr() and first.refused is not second.refused


def test_threads_have_a_current_device_each(two: Two) -> None:
    machines, rows = [machine_of(device) for device in DEVICES], torch.zeros(4, 4)

    def work(index: int) -> None:
        with two.device(index):
            for _ in range(50):
                machines[1 - index].mark(rows)
                machines[index].mark(rows)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, (0, 1)))
    marks = {note for note in two.notes if note[0] == "cuMemsetD32Async"}
    assert marks == {("cuMemsetD32Async", 0, 7), ("cuMemsetD32Async", 1, 8)}


def test_a_layout_that_one_device_runs_is_not_taken_by_another_of_the_same_name(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines: list[CudaMachine] = [machine_of(device) for device in DEVICES]
    known: list[Any] = []
    monkeypatch.setattr(tuned, "_KNOWN", {})
    monkeypatch.setattr(tuned, "call_of", lambda *_: "a call")
    monkeypatch.setattr(tuned, "recall", lambda *_: b"wide 16 8 1 1 0 900 8")
    monkeypatch.setattr(tuned, "_is_tried", lambda *given: given[-1] is machines[1])
    for machine in (*machines, *machines):
        known.append(tuned.tuned(None, None, 1, machine))  # type: ignore[arg-type]  nobody looks at them
    assert known == [None, Layout("wide", hold=900)] * 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_tensors_of_another_device_are_told_of_whoever_decided_before(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call's key says on which kind of device its tensors are, and not on which."""
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, Emulated(run_direction)))
    elsewhere: set[int] = set()
    device = Tensor.get_device
    monkeypatch.setattr(
        Tensor, "get_device", lambda self: 1 if self.data_ptr() in elsewhere else device(self)
    )
    layer = Recurrent(cell, 3, 17, backend="emulated")
    x = torch.randn(3, 2, 3)
    states = tuple(torch.zeros(1, 2, 17) for _ in layer.cell.states)
    given = states if len(states) > 1 else states[0]
    with torch.no_grad():
        layer(x, given)
        for tensor, name in ((states[-1], "a state"), (layer.weight_hh_l0, "weight_hh")):
            elsewhere.add(tensor.data_ptr())
            with pytest.raises(
                InputError, match=rf"The input is on cpu and {name} on cpu\. Move them to one"
            ):
                layer(x, given)
            elsewhere.clear()
        layer(x, given)
