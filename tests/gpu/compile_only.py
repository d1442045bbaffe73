"""A compiler for a GPU that is not there: kernels are compiled by NVRTC and never run.

python tests/gpu/compile_only.py layernorm-lstm    # registers and spills of its kernels; or a cell of agreement.py
"""

from __future__ import annotations

import argparse
import ctypes
import re
from collections.abc import Sequence

import agreement
import torch
from torch import Tensor

from cellwise import Recurrent
from cellwise.backends import registry
from cellwise.backends.base import CallContext, LayerSpec
from cellwise.backends.compiled import Compiled
from cellwise.backends.compiled.compiler import KernelCompiler
from cellwise.backends.cuda import nvrtc
from cellwise.backends.cuda.compiler import CudaCompiler
from cellwise.backends.cuda.layout import Device
from cellwise.backends.cuda.machine import Launcher, Machine
from cellwise.backends.reference.loop import run_direction
from cellwise.runtime.outputs import first_of


class NeverLaunched(Launcher):
    def launch(
        self, grid: tuple[int, int], threads: int, values: Sequence[Tensor | int], together: bool
    ) -> None:
        return


H100 = Device("sm_90", 132, 227 * 1024)


class Listing(Machine):
    """A device, an H100 if none is named, whose kernels are only written down, in `sources`."""

    def __init__(self, device: Device = H100) -> None:
        self.device = device
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


def main() -> None:
    """What ptxas says of the kernels of a layer's training step."""
    options = argparse.ArgumentParser(description=main.__doc__)
    options.add_argument("cell")
    options.add_argument("--shapes", nargs="+", default=["64,16", "128,64", "256,64", "1024,64"], help="H,B")
    options.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"))
    options.add_argument("--architecture", default="sm_90")
    given = options.parse_args()
    backend, dtype = CompileOnly(run_direction), getattr(torch, given.dtype)
    registry.BACKENDS = (*registry.BACKENDS, backend)
    for shape in given.shapes:
        hidden, batch = map(int, shape.split(","))
        layer = Recurrent(
            getattr(agreement, given.cell, given.cell), 4, hidden, backend=backend.name, dtype=dtype
        )
        backend.made.listing.sources = {}
        first_of(layer(torch.randn(2, batch, 4, dtype=dtype))[0]).sum().backward()
        context = CallContext(torch.device("cpu"), dtype)
        spec = LayerSpec(layer.cell.graph, 4, hidden)
        print(f"H {hidden}, B {batch}: {backend.made.described(spec, context, 2, batch, Listing())}")
        for way, (source, shared) in zip(
            ("forward", "backward"), backend.made.listing.sources.items(), strict=True
        ):
            registers, spilled = registers_of(source, given.architecture)
            print(f"  {way}: {registers} registers, {spilled} bytes of them spilled, {shared}")


if __name__ == "__main__":
    main()
