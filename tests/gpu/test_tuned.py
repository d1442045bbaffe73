"""Layouts that a measurement chose: found, kept, taken, and never taken from a file that names another."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compile_only import CompileOnly

from cellwise import Recurrent
from cellwise.backends import registry
from cellwise.backends.compiled import cache
from cellwise.backends.cuda import tuned
from cellwise.backends.cuda.launch import CudaRun
from cellwise.backends.cuda.layout import Layout, tried
from cellwise.backends.cuda.libcuda import DriverError
from cellwise.backends.cuda.numbers import BF16
from cellwise.backends.cuda.nvrtc import CompileError
from cellwise.backends.reference.loop import run_direction
from cellwise.bench import devices, tuning
from cellwise.bench.settings import BenchError

BACKEND = CompileOnly(run_direction)


def clock(_: object) -> float:
    """Likes long holds and few warps."""
    layout = tried()[0]
    assert layout is not None
    return 1 + abs(layout.hold - 700) / 1000 + layout.warps / 100 + layout.rows / 10


@pytest.fixture
def new_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[CudaRun]:
    """Of a layer forward and backward."""
    monkeypatch.setenv("CELLWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, BACKEND))
    monkeypatch.setattr(tuned, "_KNOWN", {})
    monkeypatch.setattr(CudaRun, "build", lambda *_: None)
    monkeypatch.setattr(tuning, "_milliseconds", clock)
    layer = Recurrent("lstm", 4, 160, backend=BACKEND.name, dtype=torch.bfloat16)
    x = torch.randn(2, 16, 4, dtype=torch.bfloat16, requires_grad=True)
    return list(tuning._runs(layer, x))


@pytest.fixture
def runs(new_runs: list[CudaRun]) -> list[CudaRun]:
    """The same after their layouts were tuned."""
    found = new_runs
    for run in found:
        (kernel,) = tuning._tuned(run, lambda: None, 16)
        assert kernel.is_better and kernel.best.hold == 700 and kernel.tried > 10
        assert "ms, now" in str(kernel)
    return found


def test_what_was_measured_is_taken_and_kept(runs: list[CudaRun], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [run.layout(BF16).hold for run in runs] == [700, 700]
    monkeypatch.setattr(tuned, "_KNOWN", {})  # another process
    assert [run.layout(BF16).hold for run in runs] == [700, 700]
    monkeypatch.setattr(runs[0].machine, "name", "another device")
    assert [run.layout(BF16).hold for run in runs] != [700, 700]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wide",
        "wide 16 8 1 1 1 4000 8",
        "wide 16 8 16 1 1 700 8",
        "wide 16 8 1 1 1 -7 8",
        "solo 16 10 1 1 0 0 8",
    ],
)
def test_a_file_that_says_something_else_changes_nothing(
    runs: list[CudaRun], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs[0]
    name = tuned._named(run.machine.name, tuned.call_of(run.program, run.form(BF16), 16))
    cache.keep(name, text.encode(), ".layout")
    monkeypatch.setattr(tuned, "_KNOWN", {})
    assert tuned.tuned(run.program, run.form(BF16), 16, run.machine) is None


def test_layouts_that_do_not_run_are_left_out_and_told_of(
    new_runs: list[CudaRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is not compiled, one has no memory, of one blocks wait in vain, and one the device does not start."""
    run, seen = new_runs[0], list[Layout]()
    machine, call = run.machine, tuned.call_of(run.program, run.form(BF16), 16)
    monkeypatch.setattr(machine, "refused", {})
    wrong: dict[int, Layout] = {}

    def build(_: CudaRun, layout: Layout) -> None:
        if layout not in seen:
            seen.append(layout)
        if len(seen) == 2 and wrong.setdefault(1, layout) == layout:
            raise CompileError("NVRTC does not take it:\nline 7")

    def work(_: object) -> float:
        layout = tried()[0]
        assert layout is not None
        place = seen.index(layout)
        if place == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if place == 3:
            machine.late.fill_(1)
        if place == 4:
            machine.refused[call, layout] = "another process holds it"
            return 0.0  # of another layout
        return clock(None)

    monkeypatch.setattr(CudaRun, "build", build)
    monkeypatch.setattr(tuning, "_milliseconds", work)
    (found,) = tuning._tuned(run, lambda: None, 16)
    reasons = [why for _, why in found.failed]
    assert [layout for layout, _ in found.failed] == seen[1:5] and found.best.hold == 700
    assert found.tried == len(seen) - 4 and found.best not in seen[1:5]
    for why, told in zip(
        reasons, ("NVRTC does not", "CUDA out of", "gave up waiting", "another process"), strict=True
    ):
        assert told in why and "\n" not in why
    assert str(found).count("\n  left out wide ") == 4
    monkeypatch.setattr(machine, "refused", {})

    def fails(_: object) -> float:
        raise DriverError("The CUDA driver fails: too many resources (701).")

    monkeypatch.setattr(tuning, "_milliseconds", fails)
    with pytest.raises(
        BenchError, match=r"no layout runs here; wide .*: The CUDA driver fails: too many .* \(701\)"
    ):
        list(tuning._tuned(run, lambda: None, 16))


def test_ctrl_c_keeps_what_was_found_before_and_waits_for_no_kernel(
    new_runs: list[CudaRun], monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    forward, backward = new_runs
    rules = backward.layout(BF16)
    built: list[Layout] = []

    def build(_: CudaRun, layout: Layout) -> None:
        built.append(layout)
        if len(built) == 1:
            raise KeyboardInterrupt
        time.sleep(0.05)

    def tune(*_: object) -> Iterator[tuning.Tuned]:
        yield from tuning._tuned(forward, lambda: None, 16)
        monkeypatch.setattr(CudaRun, "build", build)
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        yield from tuning._tuned(backward, lambda: None, 16)

    monkeypatch.setattr(tuning, "tune", tune)
    monkeypatch.setattr(devices, "check", lambda _: None)
    code, out, err = run("bench", "lstm", "--device", "cuda", "--tune", "--shapes", "2,16,4,160")
    assert code == 130 and "now 1." in out and out.count("\n") == 1
    assert "Interrupted; the layouts that were printed are kept." in err and len(built) < 4
    monkeypatch.setattr(tuned, "_KNOWN", {})  # another process
    assert forward.layout(BF16).hold == 700 and backward.layout(BF16) == rules


@pytest.mark.parametrize(
    "content",
    [b"", b"device", b"device,call,layout\nsm_90 132\nsm_90 132,a call\n,,\n", b"\xff\xfe\x00\n\x00\n\xff"],
)
def test_a_damaged_table_changes_nothing(
    new_runs: list[CudaRun], content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, rules = new_runs[0], new_runs[0].layout(BF16)
    (tmp_path / tuned.TABLE).write_bytes(content)
    monkeypatch.setattr(tuned, "files", lambda _: tmp_path)
    monkeypatch.setattr(tuned, "_KNOWN", {})
    tuned._table.cache_clear()
    try:
        assert run.layout(BF16) == rules
        device = run.machine.device
        found = f"device,call,layout\n{device.architecture} {device.multiprocessors}"
        found += (
            f",{tuned.call_of(run.program, run.form(BF16), 16)},{tuned.written(replace(rules, hold=700))}\n"
        )
        (tmp_path / tuned.TABLE).write_text(found)
        tuned._KNOWN.clear()
        tuned._table.cache_clear()
        assert run.layout(BF16).hold == 700
    finally:
        tuned._table.cache_clear()


def test_every_line_of_the_table_is_a_layout() -> None:
    for (device, call), text in tuned._table().items():
        assert device.startswith("sm_") and call.split()[0] in ("forward", "backward")
        assert isinstance(tuned.parse(text), Layout)
