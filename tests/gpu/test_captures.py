"""What happens while a caller records a CUDA graph: kernels are loaded, plans are made, and nothing of both is lost."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from emulated import EmulatedMachine
from played import CapturedGraph, Machine, Played, played
from steps import drawn, made
from torch import Tensor

from cellwise import torch_internals
from cellwise.backends.cuda import driver, libcuda
from cellwise.backends.cuda.driver import Context, CudaLauncher
from cellwise.backends.cuda.libcuda import DriverError, relaxed
from cellwise.nn import plain as plain_calls

__all__ = ["played"]  # a fixture

UNSAFE = (
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuFuncGetAttribute",
    "cuStreamCreate",
)


class Strict:
    """A driver in whose process somebody records a graph: what is unsafe is refused to threads that are not relaxed."""

    def __init__(self, failing: str = "") -> None:
        self.failing, self.calls, self.modes = failing, list[str](), threading.local()
        for name in UNSAFE:
            setattr(self, name, lambda *_, name=name: self.unsafe(name))

    def unsafe(self, name: str) -> int:
        self.calls.append(name)
        return 900 if self.mode != 2 else 209 if name == self.failing else 0

    @property
    def mode(self) -> int:
        return getattr(self.modes, "mode", 0)

    def cuThreadExchangeStreamCaptureMode(self, mode: Any) -> int:  # noqa: N802  the driver's name
        if not hasattr(self.modes, "context"):
            return 201
        self.modes.mode, mode._obj.value = mode._obj.value, self.mode
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802
        self.modes.context = context
        return 0

    def cuGetErrorString(self, code: int, text: Any) -> int:  # noqa: N802
        text._obj.value = f"code {code}".encode()
        return 0


def strict(monkeypatch: pytest.MonkeyPatch, failing: str = "") -> Strict:
    found, context = Strict(failing), Context.__new__(Context)
    context.index, context._held = 0, ctypes.c_void_p(1)
    for module, name, value in (
        (libcuda, "library", lambda: found),
        (driver, "context_of", lambda _: context),
        (driver, "machine_code", lambda *_: b"code"),
        (torch.cuda, "device", lambda _: nullcontext()),
        (torch.cuda, "ExternalStream", lambda number, device: SimpleNamespace(cuda_stream=number)),
    ):
        monkeypatch.setattr(module, name, value)
    return found


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_kernel_is_loaded_while_a_graph_is_recorded(before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    library = strict(monkeypatch)
    library.modes.mode = before
    CudaLauncher("text", torch.device("cuda", 0), 90, 64 * 1024)
    with ThreadPoolExecutor(1) as thread:  # which has no context yet
        thread.submit(driver._own_stream, torch.device("cuda", 0)).result()
    assert set(library.calls) == set(UNSAFE) and library.mode == before


@pytest.mark.parametrize("failing", ["cuModuleLoadData", "cuFuncGetAttribute"])
def test_what_a_thread_may_is_put_back_where_the_driver_fails(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = strict(monkeypatch, failing)
    with pytest.raises(DriverError, match=r"The CUDA driver fails: code 209 \(209\)\."):
        CudaLauncher("text", torch.device("cuda", 0), 90, 0)
    assert library.calls[-1] == failing and library.mode == 0
    with relaxed():
        with relaxed():
            assert library.mode == 2
        assert library.mode == 2
    assert library.mode == 0


def test_what_lasts_is_made_where_no_graph_and_no_mode_of_the_callers_reaches(played: Played) -> None:
    machine, seen, graph = Machine(), [], CapturedGraph()

    def make() -> Tensor:
        seen.append((threading.get_ident(), played.now, played.is_relaxed, torch.is_inference_mode_enabled()))
        return torch.ones(3)

    played.now = 7
    with torch.inference_mode(), torch.device("meta"):
        graph.capture_begin(capture_error_mode="thread_local")
        found = machine.lasting(make)
        graph.capture_end()
    (thread, stream, is_relaxed, is_inference), *others = seen
    assert not others and found.tolist() == [1, 1, 1] and not found.is_inference()
    assert thread != threading.get_ident() and stream not in (0, 7) and is_relaxed and not is_inference
    assert ("synchronize", stream) in played.notes and played.now == 7 and not played.is_relaxed

    def fails() -> Tensor:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        machine.lasting(fails)
    machine.lasting(make)
    assert seen[1][1] == stream, "one such stream for each device"


def test_zeros_are_one_piece_of_memory_that_stays() -> None:
    machine, device = EmulatedMachine(), torch.device("cpu")
    first = machine.zeros((3, 5), torch.float32, device)
    again = machine.zeros((2, 7), torch.float32, device)
    assert first.data_ptr() == again.data_ptr() and first.shape == (3, 5) and not again.any()
    sizes = [
        machine.zeros((count,), torch.float32, device).untyped_storage().nbytes() for count in (1, 2**16 + 1)
    ]
    larger = machine.zeros((3, 5), torch.float32, device)
    assert sizes == [2**18, 2**19] and larger.data_ptr() != first.data_ptr()
    assert len(machine._zeros[torch.float32]) == 2, "a graph may know the first"
    assert machine.zeros((2,), torch.float16, device).dtype is torch.float16
    places = machine.constant([3, 1], device)
    assert machine.constant((3, 1), device) is places and places.dtype is torch.int64


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")
@pytest.mark.parametrize(
    ("cell", "hidden", "options"),
    [
        ("lstm", 17, {}),
        ("gru", 32, {"num_layers": 2}),
        ("lstm", 17, {"proj_size": 5}),
        ("layernorm-lstm", 17, {}),
    ],
)
@pytest.mark.parametrize("is_short", [True, False])
def test_calls_whose_plans_were_made_in_a_graph_of_the_callers(
    cell: str,
    hidden: int,
    options: dict[str, Any],
    is_short: bool,
    played: Played,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a graph makes is nothing but NaN until its replay: who keeps some of it for later calls gives NaN."""
    monkeypatch.setattr(plain_calls, "_ROUTES", {})
    if is_short:  # the graph watches as a mode does, which a recording by the driver does not
        monkeypatch.setattr(torch_internals, "num_dispatch_modes", lambda: 0)
        monkeypatch.setattr(plain_calls, "_watchers", lambda: 0)
    layer = made(cell, hidden, options, backend="played")
    reference = made(cell, hidden, options, backend="reference")
    steps, batch = next(_SIZES)
    x = drawn(layer, steps, batch)[0].requires_grad_()
    held: list[Tensor] = []

    def step(of: Any, inputs: Tensor) -> list[Tensor]:
        output, _ = of(inputs)
        return [output, *torch.autograd.grad(output.square().mean(), [inputs, *of.parameters()])]

    wanted = step(reference, x)
    graph = CapturedGraph()
    graph.capture_begin(capture_error_mode="thread_local")
    held += step(layer, x)
    graph.capture_end()
    assert all(each.isnan().all() for each in held)
    assert_alike(step(layer, x), wanted)
    graph.graph.replay()
    assert_alike(held, wanted)
    assert_alike(step(layer, x), wanted)


# Sizes that no other test in this process has a plan for.
_SIZES = ((3 + number, 19) for number in itertools.count())


def assert_alike(found: list[Tensor], wanted: list[Tensor]) -> None:
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_graph_is_recorded_while_another_thread_records(played: Played) -> None:
    seen: list[bool] = []
    Machine().record(lambda: seen.append(played.is_relaxed))
    assert seen == [True] and not played.is_relaxed


@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulation is compiled by g++")
@pytest.mark.parametrize("lengths", [None, (4, 2)])
def test_memory_that_plans_let_go_of_is_lent_to_the_stream_that_works_with_it(
    lengths: tuple[int, ...] | None, played: Played
) -> None:
    """Of a stepwise layout what it works in, and where rows end early the places of their steps."""
    layer = made("lstm", 17, {"proj_size": 5} if lengths is None else {}, backend="played")
    x, _ = drawn(layer, 4, 2)
    for played.now in (5, 6):
        played.notes.clear()
        with torch.no_grad():
            layer(x, lengths=lengths)
        assert {note for note in played.notes if note[0] == "keep"} == {("keep", played.now)}
