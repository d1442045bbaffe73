"""Layouts that a measurement chose: found, kept, taken, and never taken from a file that names another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compile_only import CompileOnly

from cellwise import Recurrent
from cellwise.backends import registry
from cellwise.backends.compiled import cache
from cellwise.backends.cuda import tuned
from cellwise.backends.cuda.launch import CudaRun
from cellwise.backends.cuda.layout import Layout, tried
from cellwise.backends.cuda.numbers import BF16
from cellwise.backends.reference.loop import run_direction
from cellwise.bench import tuning

BACKEND = CompileOnly(run_direction)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[CudaRun]:
    """Of a layer forward and backward, after its layouts were tuned by a clock that likes long holds and few warps."""
    monkeypatch.setenv("CELLWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, BACKEND))
    monkeypatch.setattr(tuned, "_KNOWN", {})
    monkeypatch.setattr(CudaRun, "build", lambda *_: None)
    layer = Recurrent("lstm", 4, 160, backend=BACKEND.name, dtype=torch.bfloat16)
    x = torch.randn(2, 16, 4, dtype=torch.bfloat16, requires_grad=True)
    found = list(tuning._runs(layer, x))

    def clock(_: object) -> float:
        layout = tried()[0]
        assert layout is not None
        return 1 + abs(layout.hold - 700) / 1000 + layout.warps / 100 + layout.rows / 10

    monkeypatch.setattr(tuning, "_milliseconds", clock)
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


def test_every_line_of_the_table_is_a_layout() -> None:
    for (device, call), text in tuned._table().items():
        assert device.startswith("sm_") and call.split()[0] in ("forward", "backward")
        assert isinstance(tuned.parse(text), Layout)
