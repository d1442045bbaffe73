"""Fused kernels for any cell, forward and backward, compiled by LLVM in this process.

compiler  what `compiled` asks of a compiler     vectors   each op as vector instructions
kernel    a program as LLVM code                 products  the loops over an inner dimension (tiles)
compile   LLVM code as a function                pack      weights in the order the kernels read
target    the processor                          launch    a kernel's arguments; threads
stages    all of it as text                      stepper   one step at a time (digest)
"""

from __future__ import annotations

import torch

from cellwise.backends.compiled import Compiled
from cellwise.backends.compiled.compiler import KernelCompiler

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


class Cpu(Compiled):
    name = "cpu"
    summary = "fused kernels, forward and backward, compiled by LLVM for this processor"
    device_type = "cpu"
    dtypes = DTYPES

    def compiler(self) -> KernelCompiler:
        from cellwise.backends.cpu.compiler import llvm_compiler
        from cellwise.backends.cpu.target import host

        return llvm_compiler(host())
