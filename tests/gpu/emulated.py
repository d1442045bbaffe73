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
from cellwise.backends.cuda.stepwise import SETUP

HEADER, SANITIZER = (Path(__file__).parent / name for name in ("emulation.h", "sanitizer.h"))
OPTIONS = (
    "-O0",
    "-g1",
    "-std=c++17",
    "-fno-strict-aliasing",
    "-w",
    "-fPIC",
    "-fsanitize=thread,signed-integer-overflow",
)
FOLDER = Path(tempfile.gettempdir()) / "cellwise-emulation"
LAUNCH = """
static void** given;
UNSEEN static void body() { %s(%s); }
extern "C" UNSEEN int launch(
    void** values, int x, int y, int threads, int shared, unsigned seed, Range* known, int count) {
  given = values;
  adverse = seed;
  ranges = known, ranges_count = count;
  run_grid(Place{x, y}, threads, shared, body);
  return broken;
}
extern "C" const char* fault_found() { return fault; }
"""


@cache
def _header() -> Path:
    """What each kernel's text includes, compiled beforehand: that takes longer than most kernels do."""
    made = [each.read_text() for each in (HEADER, SANITIZER)]
    name = hashlib.sha256("".join([*made, *OPTIONS]).encode()).hexdigest()[:24]
    folder, part = FOLDER / name, FOLDER / f"{name}.{os.getpid()}.part"
    if not folder.exists():
        part.mkdir(parents=True)
        for each, text in zip((HEADER, SANITIZER), made, strict=True):
            (part / each.name).write_text(text)
        _compile(*OPTIONS, "-x", "c++-header", str(part / HEADER.name))
        if not folder.exists():
            part.rename(folder)
    return folder / HEADER.name


def _compile(*options: str) -> None:
    subprocess.run(["g++", *options], check=True, capture_output=True, text=True)


class BrokenRuleError(Exception):
    """Blocks wrote what others wait for otherwise than docs/decisions/0039 says."""


class MemoryFaultError(Exception):
    """What a kernel did to memory is no good on a device (`sanitizer.h`)."""


class Schedule:
    """How the threads of all launches take turns: 0 in order, else as badly as follows from this number."""

    seed = 0


class EmulatedLauncher(Launcher):
    def __init__(self, source: str, shared: int, arguments: Sequence[str]) -> None:
        self.shared, self.arguments = shared, tuple(arguments)
        self._read_only = [each.startswith("const ") for each in arguments]
        # Later launches know by a table on the device what the first one was given.
        self._table = next((k for k, each in enumerate(arguments) if each.endswith("* table")), None)
        self._known: dict[int, list[tuple[int, int, int]]] = {}
        kinds = [each.rsplit(" ", 1)[0].replace("__restrict__", "") for each in arguments]
        values = ", ".join(f"*({kind}*)given[{place}]" for place, kind in enumerate(kinds))
        self._text = f'#include "{_header()}"\n{source}{LAUNCH % (KERNEL, values)}'

    @cached_property
    def _library(self) -> ctypes.CDLL:
        name = hashlib.sha256(self._text.encode()).hexdigest()[:24]
        made, written = FOLDER / f"{name}.so", FOLDER / f"{name}.cpp"
        if not made.exists():
            written.write_text(self._text)
            part, compiled = (FOLDER / f"{name}.{os.getpid()}.{kind}" for kind in ("part", "o"))
            # Linked without the sanitizer's own library.
            _compile("-c", *OPTIONS, "-o", str(compiled), str(written))
            _compile("-shared", "-o", str(part), str(compiled))
            compiled.unlink()
            part.rename(made)
        return ctypes.CDLL(str(made))

    def launch(
        self, grid: tuple[int, int], threads: int, values: Sequence[Tensor | int], together: bool
    ) -> None:
        numbers = [each.data_ptr() if isinstance(each, Tensor) else each for each in values]
        self.start(grid, threads, numbers, self._ranges(values))

    def start(
        self, grid: tuple[int, int], threads: int, numbers: Sequence[int], known: list[tuple[int, int, int]]
    ) -> None:
        """Run it. known: the memory of this launch: first byte, the byte after the last, whether it is written to."""
        held = [
            (ctypes.c_void_p if "*" in kind else ctypes.c_int)(each)
            for kind, each in zip(self.arguments, numbers, strict=True)
        ]
        pointers = (ctypes.c_void_p * len(held))(*[ctypes.addressof(each) for each in held])
        ranges = (ctypes.c_size_t * (3 * len(known)))(*[number for each in known for number in each])
        library = self._library
        broken = library.launch(pointers, *grid, threads, self.shared, Schedule.seed, ranges, len(known))
        library.fault_found.restype = ctypes.c_char_p
        if fault := library.fault_found().decode():
            raise MemoryFaultError(fault)
        if broken & 1:
            raise BrokenRuleError("a place that was not marked as empty, or was written to before")
        if broken & 2:
            raise BrokenRuleError("a number that looks like an empty place")

    def _ranges(self, values: Sequence[Tensor | int]) -> list[tuple[int, int, int]]:
        """The memory that it is given, and that a table tells it of."""
        known = [
            (each.data_ptr(), each.data_ptr() + each.nbytes, int(not read_only))
            for each, read_only in zip(values, self._read_only, strict=True)
            if isinstance(each, Tensor) and each.numel()
        ]
        if self._table is None:
            return known
        table, what = values[self._table : self._table + 2]
        assert isinstance(table, Tensor)
        if what == SETUP:
            self._known[table.data_ptr()] = known
        return known + self._known[table.data_ptr()]


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
