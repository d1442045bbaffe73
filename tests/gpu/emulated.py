"""A compiler whose kernels are those for a GPU, the same text to the letter, compiled by g++ and run on the CPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor

from cellwise.backends.compiled import Compiled
from cellwise.backends.compiled.compiler import KernelCompiler
from cellwise.backends.cuda.compiler import CudaCompiler
from cellwise.backends.cuda.frame import KERNEL
from cellwise.backends.cuda.layout import Device
from cellwise.backends.cuda.machine import Launcher, Machine

HEADER = Path(__file__).parent / "emulation.h"
FOLDER = Path(tempfile.gettempdir()) / "cellwise-emulation"
LAUNCH = """
static void** given;
static void body() { %s(%s); }
extern "C" int launch(void** values, int x, int y, int threads, int shared, unsigned seed) {
  given = values;
  adverse = seed;
  run_grid(Place{x, y}, threads, shared, body);
  return broken;
}
"""


class BrokenRuleError(Exception):
    """Blocks wrote what others wait for otherwise than docs/decisions/0039 says."""


class Schedule:
    """How the threads of all launches take turns: 0 in order, else as badly as follows from this number."""

    seed = 0


class EmulatedLauncher(Launcher):
    def __init__(self, source: str, shared: int, arguments: Sequence[str]) -> None:
        self.shared = shared
        kinds = [each.rsplit(" ", 1)[0].replace("__restrict__", "") for each in arguments]
        values = ", ".join(f"*({kind}*)given[{place}]" for place, kind in enumerate(kinds))
        self._text = f'#include "{HEADER}"\n{source}{LAUNCH % (KERNEL, values)}'

    @cached_property
    def _library(self) -> ctypes.CDLL:
        text = self._text
        name = hashlib.sha256((text + HEADER.read_text()).encode()).hexdigest()[:24]
        FOLDER.mkdir(exist_ok=True)
        made, written = FOLDER / f"{name}.so", FOLDER / f"{name}.cpp"
        if not made.exists():
            written.write_text(text)
            part = FOLDER / f"{name}.{os.getpid()}.part"
            options = ["-O0", "-std=c++17", "-fno-strict-aliasing", "-w", "-shared", "-fPIC"]
            subprocess.run(["g++", *options, "-o", part, written], check=True, capture_output=True, text=True)
            part.rename(made)
        return ctypes.CDLL(str(made))

    def launch(
        self, grid: tuple[int, int], threads: int, values: Sequence[Tensor | int], together: bool
    ) -> None:
        held = [
            ctypes.c_void_p(each.data_ptr()) if isinstance(each, Tensor) else ctypes.c_int(each)
            for each in values
        ]
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(each) for each in held])
        broken = self._library.launch(pointers, *grid, threads, self.shared, Schedule.seed)
        if broken & 1:
            raise BrokenRuleError("a place that was not marked as empty, or was written to before")
        if broken & 2:
            raise BrokenRuleError("a number that looks like an empty place")


class EmulatedMachine(Machine):
    """A GPU of few multiprocessors, so that small layers fill it."""

    def __init__(self) -> None:
        self.device = Device("sm_90", 6, 227 * 1024)
        self.late = torch.zeros(1, dtype=torch.int32)
        self._built: dict[str, EmulatedLauncher] = {}

    def build(self, source: str, shared: int, arguments: tuple[str, ...]) -> EmulatedLauncher:
        if source not in self._built:
            self._built[source] = EmulatedLauncher(source, shared, arguments)
        return self._built[source]

    def multiply(self, rows: Tensor, weights: Tensor, out: Tensor) -> None:
        torch.mm(rows.float(), weights.float(), out=out)


class EmulatedCompiler(CudaCompiler):
    device_type = "cpu"

    def machine(self, device: torch.device) -> Machine:
        return machine()

    def empty(self, rows: int, width: int, like: Tensor, scratch: bool) -> Tensor:
        return like.new_full((rows, width), float("nan"))


@cache
def machine() -> EmulatedMachine:
    return EmulatedMachine()


class Emulated(Compiled):
    name = "emulated"
    summary = "kernels for a GPU, emulated"
    device_type = "cpu"
    dtypes = CudaCompiler.dtypes
    _made = EmulatedCompiler()

    def compiler(self) -> KernelCompiler:
        return self._made
