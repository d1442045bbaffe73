"""Fused kernels for any cell, forward and backward, compiled by LLVM in this process.

engine    the programs of a cell and their kernels        vectors   each op as vector instructions
kernel    a program as LLVM code                          pack      weights in the order the kernels read
compile   LLVM code as a function; cache                  run       arrays, threads, gradients of weights
target    the processor                                   operator  all of it as operators of torch (schema)
direction one layer in one direction                      twice     second derivatives
stepper   one step at a time
shortcut  plain calls, with all prepared (prepared, launch)
"""

from __future__ import annotations

from typing import Any

import torch

from cellwise.backends.base import (
    Backend,
    Call,
    PlainBatch,
    Result,
    RunDirection,
    Setting,
    Shortcut,
    Stack,
    Stepper,
    Weights,
    run_stacked,
)
from cellwise.backends.cpu import schema as schema  # torch is told of the operators
from cellwise.graph.stored import MOST_NODES
from cellwise.plan.backward import projects

DTYPES = (torch.float32, torch.float64)


class Cpu(Backend):
    """Args: definition: a differentiable way to run a direction, for derivatives of derivatives."""

    name = "cpu"
    summary = "fused kernels, forward and backward, compiled by LLVM for this processor"
    takes_surplus = True

    def __init__(self, definition: RunDirection) -> None:
        self._definition = definition

    def supports(self, stack: Stack, setting: Setting) -> str | None:
        if setting.device.type != "cpu":
            return f"the input is on the device {setting.device}, these kernels run on a CPU"
        if setting.dtype not in DTYPES:
            return f"the kernels compute in float32 and float64, not in {setting.dtype}"
        if len(stack.graph.nodes) > MOST_NODES:
            return f"{stack.graph.name} has {len(stack.graph.nodes)} nodes; at most {MOST_NODES} are compiled"
        if stack.proj_size and not projects(stack.graph):
            return f"the first state of {stack.graph.name} is used in ways that its projection does not allow"
        if setting.transforms:
            return "the kernels know no transforms of torch.func"
        if setting.forward_mode:
            return "the kernels know no forward-mode derivatives"
        return None

    def prepare(self, stack: Stack, setting: Setting) -> Any:
        # LLVM is loaded by the first call that needs it, not by `import cellwise`.
        from cellwise.backends.cpu.direction import Direction

        return Direction.of(stack, setting.dtype, self._definition, setting.recompute)

    def stepper(
        self, stack: Stack, prepared: Any, weights: tuple[Weights, ...], batch: int
    ) -> Stepper | None:
        from cellwise.backends.cpu.stepper import CpuStepper

        dtype = next(iter(weights[0].by_stem.values())).dtype
        taken = [{stem: each.by_stem[stem] for stem in prepared.stems} for each in weights]
        return CpuStepper(prepared.engine(dtype), stack, taken, batch)

    def shortcut(self, stack: Stack, prepared: Any, batch: PlainBatch) -> Shortcut | None:
        from cellwise.backends.cpu.shortcut import shortcut

        return None if stack.proj_size else shortcut(stack, prepared, batch)

    def run(self, stack: Stack, call: Call) -> Result:
        return run_stacked(stack, call, call.prepared.run, fresh=True)
