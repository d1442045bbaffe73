"""Fused kernels for any cell, forward and backward, compiled by LLVM in this process.

engine    the programs of a cell and their kernels        vectors   each op as vector instructions
kernel    a program as LLVM code                          pack      weights in the order the kernels read
compile   LLVM code as a function; cache                  run       arrays, threads, gradients of weights
target    the processor                                   operator  all of it as operators of torch
"""

from __future__ import annotations

import torch
from torch.autograd import forward_ad

from cellwise.backends.base import Backend, Call, Result, Stack, run_stacked

DTYPES = (torch.float32, torch.float64)


class Cpu(Backend):
    name = "cpu"
    summary = "fused kernels, forward and backward, compiled by LLVM for this processor"

    def supports(self, stack: Stack, call: Call) -> str | None:
        data = call.sequences.data
        if data.device.type != "cpu":
            return f"the input is on the device {data.device}, these kernels run on a CPU"
        if data.dtype not in DTYPES:
            return f"the kernels compute in float32 and float64, not in {data.dtype}"
        if stack.proj_size:
            return "the kernels know no proj_size"
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return "the kernels know no transforms of torch.func"
        if forward_ad._current_level >= 0:
            return "the kernels know no forward-mode derivatives"
        return None

    def run(self, stack: Stack, call: Call) -> Result:
        # LLVM is loaded by the first call that needs it, not by `import cellwise`.
        from cellwise.backends.cpu.direction import run_direction

        return run_stacked(stack, call, run_direction)
