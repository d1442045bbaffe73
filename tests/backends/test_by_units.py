"""Kernels that two threads share by units: the bits of one thread, and no waiting for who does not come."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

import cellwise
from cellwise.backends.compiled import backward_pass, forward_pass
from cellwise.backends.compiled.cell_kernels import CellKernels, kernels_of
from cellwise.backends.cpu import by_units, compiler, in_place, launch, threads
from cellwise.backends.cpu.compile import compiled
from cellwise.backends.cpu.compiler import LlvmCompiler, llvm_compiler
from cellwise.backends.cpu.target import Target, host

ARM = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(threads, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(threads, "_SOON", 20)
    monkeypatch.setattr(threads, "_PATIENCE", threads._Patience())
    monkeypatch.setattr(by_units, "_LEAST_WEIGHTS", 1)
    monkeypatch.setattr(by_units, "_LEAST_READ", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _everything(layer: Any, x: Tensor, lengths: list[int] | None = None) -> list[Tensor]:
    """Outputs, final states and all gradients, by runs that are opened anew."""
    forward_pass.forward_pass.cache_clear()
    backward_pass.backward_pass.cache_clear()
    x = x.clone().requires_grad_()
    output, finals = layer(x, lengths=lengths)
    found = [output, *(finals if isinstance(finals, tuple) else (finals,))]
    total = sum((i + 1) * each.square().sum() for i, each in enumerate(found))
    return [*found, *torch.autograd.grad(total, [x, *layer.parameters()])]  # type: ignore[arg-type]


def _in_one_thread(layer: Any, x: Tensor, lengths: list[int] | None = None) -> list[Tensor]:
    with (
        mock.patch.object(launch, "in_units", lambda *_: False),
        mock.patch.object(launch, "row_shares", lambda schedule, _: ((0, schedule.batch),)),
    ):
        return _everything(layer, x, lengths)


@pytest.mark.parametrize(
    ("cell", "rows", "lengths", "dtype"),
    [
        ("lstm", 1, None, torch.float32),  # whose inputs are multiplied for a block of steps
        ("gru-reset-before", 3, [4, 12, 0], torch.float32),  # whose steps have two stages, and three backward
        ("gru", 5, None, torch.float64),
    ],
)
def test_two_threads_have_the_bits_of_one(
    cell: str, rows: int, lengths: list[int] | None, dtype: torch.dtype, two_threads: None
) -> None:
    layer, x = (
        cellwise.Recurrent(cell, 17, 100, backend="cpu", dtype=dtype),
        torch.randn(12, rows, 17, dtype=dtype),
    )
    with mock.patch.object(launch, "in_step", wraps=threads.in_step) as in_step:
        found = _everything(layer, x, lengths)
    assert in_step.call_count == 2
    wanted = _in_one_thread(layer, x, lengths)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    with mock.patch.object(threads._PATIENCE, "is_over", lambda: True):  # one thread, for a while
        alone = _everything(layer, x, lengths)
    assert all(torch.equal(a, b) for a, b in zip(alone, wanted, strict=True))


def test_two_threads_that_read_weights_where_they_lie(two_threads: None) -> None:
    layer, x = cellwise.LSTM(17, 96, backend="cpu"), torch.randn(4, 2, 17)
    if host().vector_bytes < 32:
        pytest.skip("narrow vectors pack")
    emitted = []
    emit = in_place.emit_in_place

    def noted(*given: Any, **options: Any) -> Any:
        emitted.append(options)
        return emit(*given, **options)

    kernels_of.cache_clear()  # so that kernels are made anew
    with (
        mock.patch.object(compiler, "emit_in_place", noted),
        mock.patch.object(launch, "in_step", wraps=threads.in_step) as in_step,
    ):
        found = _everything(layer, x)
    assert {"by_units": True} in emitted and in_step.call_count == 2
    assert all(torch.equal(a, b) for a, b in zip(found, _in_one_thread(layer, x), strict=True))


@pytest.mark.parametrize(("cell", "dtype"), [("lstm", torch.float32), ("gru-reset-before", torch.float64)])
def test_the_first_thread_goes_on_alone_where_the_second_is_late(
    cell: str, dtype: torch.dtype, two_threads: None
) -> None:
    """And with the same bits, whatever the second had done by then."""
    layer = cellwise.Recurrent(cell, 17, 70, backend="cpu", dtype=dtype)
    x = torch.randn(12, 2, 17, dtype=dtype)
    asked = []

    def late(calls: Any, alone: Any, arrivals: np.ndarray, at_best: float) -> float:
        def second() -> None:
            time.sleep(0.01)
            calls[1]()

        threads.in_step_with_own([calls[0], second], alone, arrivals, at_best)
        asked.append((int(arrivals[2 * by_units.ARRIVALS]), int(arrivals[by_units.ARRIVALS])))
        return at_best

    with mock.patch.object(launch, "in_step", late):
        found = _everything(layer, x)
    assert len(asked) == 2
    assert all(has_asked and parts > by_units._LEFT for has_asked, parts in asked)
    assert all(torch.equal(a, b) for a, b in zip(found, _in_one_thread(layer, x), strict=True))


def test_few_units_leave_nothing_for_the_second_thread(two_threads: None) -> None:
    layer, x = cellwise.Recurrent("gru", 3, 5, backend="cpu"), torch.randn(4, 2, 3)
    found, wanted = _everything(layer, x), _in_one_thread(layer, x)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_what_is_too_small_or_sums_over_units_is_not_shared(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalized = cellwise.Recurrent("layernorm-gru", 3, 20, backend="cpu")
    with mock.patch.object(launch, "in_step", side_effect=AssertionError):
        _everything(normalized, torch.randn(4, 2, 3))
        monkeypatch.setattr(by_units, "_LEAST_WEIGHTS", 1000)
        _everything(cellwise.Recurrent("gru", 3, 10, backend="cpu"), torch.randn(4, 2, 3))


def test_a_run_that_was_launched_with_another_is_laid_out_anew_for_itself(two_threads: None) -> None:
    layer = cellwise.Recurrent("gru", 17, 70, bidirectional=True, backend="cpu")
    x = torch.randn(12, 2, 17)
    with mock.patch.object(LlvmCompiler, "runs_at_once", lambda *_: False), torch.no_grad():
        wanted = layer(x)[0]
    forward_pass.forward_pass.cache_clear()
    torch.set_num_threads(4)
    with torch.no_grad():
        layer(x)  # both at once, each in two threads that share rows
    torch.set_num_threads(2)
    with mock.patch.object(LlvmCompiler, "runs_at_once", lambda *_: False), torch.no_grad():
        assert torch.equal(layer(x)[0], wanted)


def _waiting(arrivals: np.ndarray, begun: threading.Event, ended: list[int]) -> Callable[[], None]:
    """What a thread does that waits for another one."""

    def wait() -> None:
        begun.set()
        end = time.perf_counter() + 5
        while arrivals[0] < 1 and time.perf_counter() < end:
            time.sleep(0.001)
        ended.append(int(arrivals[0]))

    return wait


def test_a_thread_that_waits_is_let_go_when_the_other_is_interrupted() -> None:
    begun, ended, arrivals = threading.Event(), list[int](), np.zeros(1, np.int64)

    def interrupted() -> None:
        assert begun.wait(5)
        raise KeyboardInterrupt

    with (
        mock.patch.object(threads, "_SOON", 20),
        mock.patch.object(threads, "_PATIENCE", threads._Patience()),
        pytest.raises(KeyboardInterrupt),
    ):
        threads.in_step_with_own([interrupted, _waiting(arrivals, begun, ended)], lambda: None, arrivals)
    assert len(ended) == 1
    assert ended[0] > 1


def test_after_a_call_that_took_far_too_long_work_is_not_shared_for_a_while() -> None:
    patience = threads._Patience()
    patience.took(0.0019, 0.001)
    patience.took(1.0, math.inf)  # the first
    assert not patience.is_over()
    patience.took(0.1, 0.001)
    assert patience.is_over()


def test_all_is_done_alone_where_no_other_thread_comes() -> None:
    held, made = threading.Event(), list[str]()
    blocking = threads._pool(1).submit(held.wait, 20)
    with mock.patch.object(threads, "_PATIENCE", threads._Patience()):
        calls = [lambda: made.append("first"), lambda: made.append("second")]
        threads.in_step_with_own(calls, lambda: made.append("alone"), np.zeros(1, np.int64))
    held.set()
    blocking.result()
    assert made == ["alone"]


def test_waiting_compiles_for_arm() -> None:
    kernels = CellKernels(cellwise.Recurrent("gru", 3, 20).cell.graph, torch.float32, llvm_compiler(host()))
    text = str(by_units.emit_by_units(kernels.inference.program, 4, ARM))
    assert "llvm.aarch64.hint" in text
    assert len(compiled(text, ARM)) > 1000


@pytest.mark.parametrize(
    ("layer", "shape", "wanted"),
    [
        (
            lambda: cellwise.LSTM(128, 128, bidirectional=True),
            (150, 1, 128),
            "both directions at once, a thread for each",
        ),
        (lambda: cellwise.LSTM(512, 512), (50, 2, 512), "two threads, each half of the units"),
        (lambda: cellwise.LSTM(128, 128), (100, 16, 128), "2 threads share the rows"),
        (lambda: cellwise.LSTM(64, 64), (10, 1, 64), None),
        (lambda: cellwise.LSTM(64, 128), (20, 8, 64), None),  # recorded, one chain in one thread
        (
            lambda: cellwise.LSTM(64, 128, 3),
            (100, 2, 64),
            "2 threads, each in a layer of its own, block by block of the steps",
        ),
        (lambda: cellwise.LSTM(64, 16, 2), (10, 1, 64), None),
    ],
)
def test_explain_says_how_threads_share_a_call(
    layer: Callable[[], Any], shape: tuple[int, ...], wanted: str | None
) -> None:
    made, before = layer(), torch.get_num_threads()
    made.backend = "cpu"
    torch.set_num_threads(2)
    try:
        assert cellwise.explain(made, torch.zeros(shape)).detail == wanted
    finally:
        torch.set_num_threads(before)
