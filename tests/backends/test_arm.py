"""The kernels for Arm run, on an Arm processor that qemu plays, and compute what this machine's kernels do.

Every call that a run here makes is recorded, with all that lies in its buffers before and after. The same calls are
made by the Arm code, linked with `arm_driver.c`, and must leave the same in the buffers.
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from guarded import Guards, guarding
from guarded_runs import Case, buffers, drawn, everything

from cellwise import cells
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.cpu.compile import object_code
from cellwise.backends.cpu.compiler import llvm_compiler
from cellwise.backends.cpu.kernel import emit, widths_of
from cellwise.backends.cpu.pack import emit_pack
from cellwise.backends.cpu.products import routine, routine_name
from cellwise.backends.cpu.target import Target, host

ARM = Target("aarch64-unknown-linux-gnu", "neoverse-n1", "+neon", 16, 32)
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
MISSING = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
INSTALL = "apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
KERNELS = ("inference", "training", "backward")


@dataclass
class Recorded:
    """A call: the kernel's number, its buffers before and after, and the addresses that lie in them."""

    kernel: int
    before: list[bytes]
    after: list[bytes] = field(default_factory=list)
    addresses: list[tuple[int, int, int, int]] = field(default_factory=list)
    given: tuple[int, int] = (0, 0)

    def packed(self) -> bytes:
        parts = [struct.pack("<2q", self.kernel, len(self.before))]
        for each in self.before:
            parts += [struct.pack("<q", len(each)), each]
        parts.append(struct.pack("<q", len(self.addresses)))
        parts += [struct.pack("<4q", *each) for each in self.addresses]
        return b"".join([*parts, struct.pack("<2q", *self.given)])


class Recorder:
    """Records the calls of an engine's kernels; the guarded memory knows how large each buffer is."""

    def __init__(self, engine: CellKernels, guards: Guards) -> None:
        self.guards = guards
        self.calls: list[Recorded] = []
        self.engine = replace(engine)
        for number, name in enumerate(KERNELS):
            kernel = getattr(engine, name)
            count = len(buffers(kernel.program, kernel))
            call = self._recorded(number, kernel.call, [(0, place) for place in range(count)])
            watched = replace(kernel, call=call)
            watched.__dict__["pack"] = self._recorded(len(KERNELS), kernel.pack, None)
            self.engine.__dict__[name] = watched

    def _recorded(
        self, number: int, run: Callable[[int, int], None], places: list[tuple[int, int]] | None
    ) -> Callable[[int, int], None]:
        def call(first: int, second: int) -> None:
            at = places
            if (
                at is None
            ):  # after the range of jobs, where they put what they pack, and where the weights are
                begin, end = np.frombuffer((ctypes.c_int64 * 2).from_address(second), np.int64)
                if begin == end:
                    return
                given = self.guards.near(second, beside=0)
                assert given is not None
                at = [(1, place) for place in range(2, given[1] // 8)]
            regions = [self.guards.near(address, beside=0) for address in (first, second)]
            found = []
            for buffer, place in at:
                address = ctypes.c_int64.from_address((first, second)[buffer] + 8 * place).value
                region = self.guards.near(address, beside=0)
                if region is not None and region not in regions:
                    regions.append(region)
                found.append((buffer, place, address, region))
            known = [region for region in regions if region is not None]
            assert len(known) == len(regions), "what a kernel is given lies outside of guarded memory"
            recorded = Recorded(number, [ctypes.string_at(*region) for region in known], given=(0, 1))
            for buffer, place, address, region in found:
                if region is not None:
                    recorded.addresses.append((buffer, 8 * place, known.index(region), address - region[0]))
            run(first, second)
            recorded.after = [ctypes.string_at(*region) for region in known]
            self.calls.append(recorded)

        return call


def _linked(engine: CellKernels, folder: Path) -> Path:
    """A program for Arm of the engine's kernels and the driver."""
    programs = [getattr(engine, name).program for name in KERNELS]
    # By name: where nothing is kept for the way back, training is inference.
    code = {each.name: object_code(emit(each, engine.dtype.itemsize, ARM), ARM) for each in programs}
    code["pack"] = object_code(emit_pack(engine.dtype.itemsize, ARM), ARM)
    for width in {width for program in programs for width in widths_of(program, ARM)}:
        code[routine_name(width, engine.dtype.itemsize, ARM)] = routine(width, engine.dtype.itemsize, ARM)
    objects = []
    for name, content in code.items():
        objects.append(folder / f"{name}.o")
        objects[-1].write_bytes(content)
    called = [*(program.name for program in programs), "pack"]
    (folder / "kernels.h").write_text("".join(f"KERNEL({name})\n" for name in called))
    driver, made = Path(__file__).with_name("arm_driver.c"), folder / "driver"
    command = [COMPILER, "-O1", "-static", "-I", folder, driver, *objects, "-o", made, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def _is_number(recorded: Recorded, place: int) -> bool:
    """Whether a buffer holds floats: the tables of numbers are not written, and so compare as bytes."""
    return recorded.before[place] != recorded.after[place]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}: {INSTALL}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_arm_kernels_compute_what_those_of_this_machine_do(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    # Shaped as for Arm, so that buffers have the same layout.
    compiler = llvm_compiler(replace(host(), vector_bytes=16, registers=32))
    engine = CellKernels(cells.get(name).graph, dtype, compiler)
    calls: list[Recorded] = []
    for hidden, batch, resets in ((3, 1, False), (17, 5, True), (20, 9, False)):
        case = Case(dtype, 0, hidden, batch, 4, 3, batch > 1, resets, resets, 1, ARM)
        with guarding(at_end=True) as guards:
            recorder = Recorder(engine, guards)
            everything(recorder.engine, case, drawn(recorder.engine, case))
        calls += recorder.calls
    assert {call.kernel for call in calls} >= {0, 1, 2}
    (tmp_path / "in").write_bytes(b"".join(call.packed() for call in calls))
    made = _linked(engine, tmp_path)
    done = subprocess.run(
        [EMULATOR, made, tmp_path / "in", tmp_path / "out"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, start = (tmp_path / "out").read_bytes(), 0
    kind = np.float32 if dtype is torch.float32 else np.float64
    written = 0
    for call in calls:
        holding = {buffer for buffer, *_ in call.addresses}
        for place, wanted in enumerate(call.after):
            here = found[start : start + len(wanted)]
            start += len(wanted)
            if _is_number(call, place):
                written += 1
                a, b = np.frombuffer(here, kind), np.frombuffer(wanted, kind)
                np.testing.assert_allclose(a, b, rtol=1e-5 if dtype is torch.float32 else 1e-13, atol=1e-6)
            elif place not in holding:  # addresses are others there
                assert here == wanted
    assert start == len(found)
    assert written > 9
