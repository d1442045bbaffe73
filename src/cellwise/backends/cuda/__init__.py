"""Fused kernels for any cell on NVIDIA GPUs, forward and backward, compiled by NVRTC in this process.

compiler  what `compiled` asks of a compiler     frame        what layouts share of a kernel's text
layout    how work lies on a device              wide, solo, scan, stepwise, rowwise   the layouts
choice    which layout a call gets, and why
reads     what a kernel reads at each step       reductions   what the units of a row give together
launch    a kernel's arguments, and the launch   products     recurrent products, and their weights packed
direct    layer passes of one shape of call      direct_gradients   what weights and input get of a backward pass
general   the same calls by several launches     stepper      one step at a time, as graphs of the device's
tuned     layouts that were measured to be faster
nvrtc, driver, machine   text to code to device  expressions  each op as C++ (numbers, text, prelude.cuh)
libcuda   the driver's functions, and what it allows while a graph is recorded
"""

from __future__ import annotations

from typing import Any

import torch

from cellwise.backends.base import Call, CallContext, LayerSpec, PlainBatch, Result, Shortcut
from cellwise.backends.compiled import Compiled
from cellwise.backends.compiled.compiler import KernelCompiler

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Cuda(Compiled):
    name = "cuda"
    summary = "fused kernels, forward and backward, compiled by NVRTC for this GPU"
    device_type = "cuda"
    dtypes = DTYPES

    def compiler(self) -> KernelCompiler:
        from cellwise.backends.cuda.compiler import cuda_compiler

        return cuda_compiler()

    def supports(self, stack: LayerSpec, context: CallContext) -> str | None:
        reason = super().supports(stack, context)
        if reason is not None:
            return reason
        from cellwise.backends.cuda.compiler import cuda_compiler, unknown_to_kernels

        unknown = unknown_to_kernels(stack.graph)
        return unknown or cuda_compiler().reason_against(stack, context)

    def detail(self, stack: LayerSpec, context: CallContext, steps: int, batch: int) -> str | None:
        from cellwise.backends.cuda.compiler import cuda_compiler

        compiler = cuda_compiler()
        return compiler.described(stack, context, steps, batch, compiler.machine(context.device))

    def shortcut(self, stack: LayerSpec, prepared: Any, batch: PlainBatch) -> Shortcut | None:
        return (
            None if torch.is_autocast_enabled(self.device_type) else super().shortcut(stack, prepared, batch)
        )

    def run(self, stack: LayerSpec, call: Call) -> Result:
        if not torch.is_autocast_enabled(self.device_type):
            return super().run(stack, call)
        from cellwise.backends.compiled.autocast import run_cast

        made = call.prepared.of_dtype(torch.get_autocast_dtype(self.device_type))
        return run_cast(stack, call, made, self.device_type)
