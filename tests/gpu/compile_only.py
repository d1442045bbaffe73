"""A compiler for a GPU that is not there: kernels are compiled by NVRTC and never run."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from cellwise.backends.compiled import Compiled
from cellwise.backends.compiled.compiler import KernelCompiler
from cellwise.backends.cuda import nvrtc
from cellwise.backends.cuda.compiler import CudaCompiler
from cellwise.backends.cuda.layout import Device
from cellwise.backends.cuda.machine import Launcher, Machine


class NeverLaunched(Launcher):
    def launch(
        self, grid: tuple[int, int], threads: int, values: Sequence[Tensor | int], together: bool
    ) -> None:
        return


class Listing(Machine):
    """An H100 whose kernels are only written down, in `sources`."""

    def __init__(self) -> None:
        self.device = Device("sm_90", 132, 227 * 1024)
        self.late = torch.zeros(1, dtype=torch.int32)
        self.sources: dict[str, str] = {}

    def multiply(self, rows: Tensor, weights: Tensor, out: Tensor) -> None:
        return

    def build(self, source: str, shared: int, arguments: tuple[str, ...]) -> Launcher:
        self.sources[source] = f"{shared} bytes of shared memory"
        return NeverLaunched()


class ListingCompiler(CudaCompiler):
    device_type = "cpu"

    def __init__(self) -> None:
        self.listing = Listing()

    def machine(self, device: torch.device) -> Machine:
        return self.listing


class CompileOnly(Compiled):
    name = "compile-only"
    summary = "kernels for a GPU, never run"
    device_type = "cpu"
    dtypes = CudaCompiler.dtypes
    made = ListingCompiler()

    def compiler(self) -> KernelCompiler:
        return self.made


def registers_of(source: str, architecture: str) -> tuple[int, int]:
    """Registers of a thread, and the bytes of those that did not fit, as ptxas says."""
    library, program = nvrtc.library(), ctypes.c_void_p()
    assert not library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17", b"--ptxas-options=-v"]
    code = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = nvrtc._log(program)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    assert code == 0, log
    registers, spilled = re.search(r"Used (\d+) registers", log), re.search(r"(\d+) bytes spill stores", log)
    assert registers and spilled, log
    return int(registers[1]), int(spilled[1])
