"""NVRTC takes the kernels of all cells for three generations of GPUs, without one; registers and spills are bounded."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from agreement import Normed, Several
from compile_only import CompileOnly, registers_of

from cellwise import Cell, Recurrent, cells
from cellwise.backends import registry
from cellwise.backends.cuda import layout as layouts
from cellwise.backends.cuda import nvrtc
from cellwise.backends.cuda.layout import STEPWISE, Layout, trying
from cellwise.backends.reference.loop import run_direction
from cellwise.runtime.outputs import first_of

BACKEND = CompileOnly(run_direction)
WIDE = Layout("wide", units=8, warps=4)
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nvidia") is None,
    reason="NVRTC is not installed (pip install nvidia-cuda-nvrtc)",
)


def _sources(
    monkeypatch: pytest.MonkeyPatch,
    cell: str | type[Cell],
    hidden: int,
    batch: int,
    dtype: torch.dtype,
    layout: Layout | None = None,
) -> list[str]:
    """The texts of a layer's kernels: with a tape, backward."""
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, BACKEND))
    monkeypatch.setattr(BACKEND.made.listing, "sources", {})
    layer = Recurrent(cell, 4, hidden, backend=BACKEND.name, dtype=dtype)
    beside = {name: torch.rand(2, batch, dtype=dtype) for name in layer.cell.inputs}
    with trying(layout, layout):
        first_of(layer(torch.randn(2, batch, 4, dtype=dtype), **beside)[0]).sum().backward()
    return list(BACKEND.made.listing.sources)


@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_kernels_compile_for(architecture: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Cells without products are compiled for stretches of time.
    monkeypatch.setattr(layouts, "LONG", 1)
    monkeypatch.setattr(layouts, "STRETCH", 1)
    monkeypatch.setattr(layouts, "STRETCHES", 2)
    sources: list[str] = []
    for number, cell in enumerate(cells.FAMILIAR):
        dtype = (torch.float32, torch.bfloat16, torch.float16)[(number + architecture) % 3]
        sources += _sources(monkeypatch, cell, 160 if cell == "lstm" else 24, 5, dtype)
        sources += _sources(monkeypatch, cell, 24, 5, dtype, STEPWISE)
    rowwise = Layout("rowwise", warps=1) if architecture != 90 else None
    dtype = (torch.float32, torch.bfloat16, torch.float16)[architecture % 3]
    sources += _sources(monkeypatch, Normed, 24, 5, dtype, rowwise)
    sources += _sources(monkeypatch, Several, 24, 5, dtype, WIDE if architecture == 90 else None)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda source: nvrtc.machine_code(source, architecture), sources))
    assert len(found) >= 4 * len(cells.FAMILIAR) and all(code[:4] == b"\x7fELF" for code in found)


@pytest.mark.parametrize(
    ("cell", "hidden", "batch"), [("lstm", 64, 16), ("lstm", 512, 64), ("layernorm-gru", 64, 16)]
)
def test_weights_stay_in_registers(
    cell: str, hidden: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in _sources(monkeypatch, cell, hidden, batch, torch.bfloat16):
        registers, spilled = registers_of(source, "sm_90")
        assert registers <= 255 and spilled == 0


def test_a_mistake_is_shown_as_nvrtc_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(nvrtc.CompileError, match=r"(?s)sm_90.*undefined"):
        nvrtc.machine_code('extern "C" __global__ void k(int* p) { *p = nothing; }', 90)


def test_a_device_that_nvrtc_does_not_know_gets_what_came_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "architectures", lambda: (80, 90, 100, 120))
    targets = {each: nvrtc.target_of(each) for each in (80, 86, 89, 103, 121)}
    assert targets == {
        80: "sm_80",
        86: "compute_80",
        89: "compute_80",
        103: "compute_100",
        121: "compute_120",
    }
    with pytest.raises(nvrtc.CompileError, match=r"8\.0 and later; this device has 7\.5"):
        nvrtc.target_of(75)


def test_a_device_newer_than_nvrtc_gets_ptx() -> None:
    code = nvrtc.machine_code('extern "C" __global__ void k(int* p) { *p = 1; }', 999)
    assert code.lstrip().startswith(b"//") and b".target sm_" in code


@pytest.mark.parametrize(
    ("of_torch", "wanted"),
    [
        ("13.0", "cu13/lib/libnvrtc.so.13"),
        ("12.8", "cuda_nvrtc/lib/libnvrtc.so.12"),
        (None, "cu13/lib/libnvrtc.so.13"),
    ],
)
def test_the_nvrtc_of_torchs_cuda_comes_before_others(
    of_torch: str | None, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("cu13/lib/libnvrtc.so.13", "cu13/lib/libnvrtc.alt.so.13", "cuda_nvrtc/lib/libnvrtc.so.12")
    for each in (*files, "cu13/lib/libnvrtc-builtins.so.13.0"):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).write_bytes(b"")
    monkeypatch.setattr(torch.version, "cuda", of_torch)
    assert nvrtc._file([str(tmp_path / "cu13/lib"), str(tmp_path / "cuda_nvrtc/lib")]) == str(
        tmp_path / wanted
    )
