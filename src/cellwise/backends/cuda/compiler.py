"""Kernels by NVRTC for an NVIDIA GPU: what `compiled` asks of a compiler."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor

from cellwise.backends.base import CallContext, LayerSpec, Stepper
from cellwise.backends.compiled.cell_kernels import CellKernels, kernels_for
from cellwise.backends.compiled.compiler import CompiledKernel, KernelCompiler, RunShape, SmallCall, SmallPass
from cellwise.backends.cuda import DTYPES
from cellwise.backends.cuda.choice import chosen
from cellwise.backends.cuda.expressions import LOWERINGS
from cellwise.backends.cuda.launch import CudaRun
from cellwise.backends.cuda.layout import Form
from cellwise.backends.cuda.machine import Machine
from cellwise.backends.cuda.numbers import number_of
from cellwise.backends.cuda.products import BIASES
from cellwise.backends.cuda.reductions import TOGETHER
from cellwise.graph import StepGraph
from cellwise.graph.ops import BESIDE, CONSTANT, DRAW, INPUT, PROJECT, SCALAR, STATE, VECTOR
from cellwise.plan.forward import forward_program
from cellwise.plan.program import Program, Width

LEAST_CAPABILITY = (8, 0)  # products of bfloat16 and TF32, asynchronous copies


@dataclass(frozen=True, eq=False)
class CudaKernel(CompiledKernel):
    """A program. What is compiled of it depends on the sizes of a call, and so is made when a run is opened."""

    program: Program
    dtype: torch.dtype
    compiler: CudaCompiler

    def open(self, shape: RunShape) -> CudaRun:
        return CudaRun(self, shape, self.compiler.machine(shape.device))


class CudaCompiler(KernelCompiler):
    device_type = "cuda"
    dtypes = DTYPES
    layout = "quads"
    # Large products are what a GPU is best at, and every span is one more launch.
    span_bytes, recomputing_span_bytes = (2**30, 2**30), 2**27
    plans_every_call = True

    def row_width(self, size: int, dtype: torch.dtype) -> int:
        whole = 64 // dtype.itemsize
        return -(-size // whole) * whole

    def compile(self, program: Program, dtype: torch.dtype) -> CudaKernel:
        return CudaKernel(program, dtype, self)

    def empty(self, rows: int, width: int, like: Tensor, scratch: bool) -> Tensor:
        return like.new_empty(rows, width)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        return self.machine(device).zeros(shape, dtype, device)

    def constant(self, numbers: Sequence[int], device: torch.device) -> Tensor:
        return self.machine(device).constant(numbers, device)

    def small_pass(self, call: SmallCall) -> SmallPass | None:
        from cellwise.backends.cuda.direct import direct_pass

        return direct_pass(call)

    def fork(
        self, passes: Sequence[SmallPass], records: bool, tensors: Sequence[Tensor]
    ) -> AbstractContextManager[None] | None:
        from cellwise.backends.cuda.direct import DirectPass

        machine = self.machine(tensors[0].device)
        blocks = [each.blocks(records) for each in passes if isinstance(each, DirectPass)]
        # More blocks than run at once would run one after the other, whatever they are told.
        fits = len(blocks) == len(passes) and sum(blocks) <= machine.device.multiprocessors
        return machine.fork(tensors) if fits else None

    def stepper(
        self,
        kernels: CellKernels,
        stack: LayerSpec,
        weights: Sequence[Sequence[Tensor]],
        batch: int,
        watched: Sequence[Tensor],
    ) -> Stepper | None:
        from cellwise.backends.cuda.stepper import CudaStepper

        machine = self.machine(watched[0].device)
        # Memory that is made while the caller records a graph would be that graph's.
        if not batch or machine.stream() is None:
            return None
        return CudaStepper(kernels, stack, weights, batch, watched, machine)

    def reason_against(self, stack: LayerSpec, context: CallContext) -> str | None:
        """Why such a layer cannot run on its device, as the end of a sentence; None if it can."""
        from cellwise.backends.cuda import nvrtc

        if not torch.cuda.is_available():  # shapes of a program that is traced for another machine
            return "there is no NVIDIA GPU that torch can use"
        capability = torch.cuda.get_device_capability(context.device)
        if capability < LEAST_CAPABILITY:
            least, has = (".".join(map(str, each)) for each in (LEAST_CAPABILITY, capability))
            return f"the kernels ask for compute capability {least}, and {context.device} has {has}"
        try:
            nvrtc.version()
            self.machine(context.device)
        except (nvrtc.CompileError, OSError) as error:
            return f"they cannot be compiled: {error}"
        return None

    def described(
        self, stack: LayerSpec, context: CallContext, steps: int, batch: int, machine: Machine
    ) -> str:
        """The layouts of a call of this T and B, and why none that holds the weights."""
        projected = stack.proj_size
        kernels = kernels_for(stack.graph, context.dtype, self, bool(projected), context.recompute)
        widths = [self.row_width(size, context.dtype) for size in (stack.hidden_size, projected)]
        form = Form(
            number_of(context.dtype),
            stack.hidden_size,
            widths[0],
            True,
            context.resets,
            frozenset(BIASES if stack.bias else ()),
            True,
            frozenset(),
            projected,
            widths[1],
        )
        programs = kernels.inference.program, kernels.backward.program
        forward, backward = (str(chosen(program, form, batch, machine, steps)) for program in programs)
        return forward if forward == backward else f"forward {forward}; backward {backward}"

    def machine(self, device: torch.device) -> Machine:
        """The device that tensors are on."""
        from cellwise.backends.cuda.driver import machine_of

        return machine_of(device)


# What kernels read and write, and how wide it may be.
_LEAVES = {INPUT, STATE, PROJECT, VECTOR, SCALAR, CONSTANT, BESIDE, DRAW}
_WIDTHS = {Width.INPUT, Width.HIDDEN, Width.PROJECTED, Width.ROW, Width.PARTIAL}


@lru_cache(maxsize=512)
def unknown_to_kernels(graph: StepGraph) -> str | None:
    """What of a cell's equations these kernels have no words for, as the end of a sentence; None if they have all."""
    for node in graph.nodes:
        if not (node.op in _LEAVES or node.op.name in LOWERINGS or node.op.name in TOGETHER):
            return f"these kernels know no {node.op.name}"
    for buffer in forward_program(graph, None).buffers:
        if buffer.width not in _WIDTHS:
            return f"these kernels know no rows of {buffer.width.value} numbers, as {buffer.name} has them"
    return None


@cache
def cuda_compiler() -> CudaCompiler:
    return CudaCompiler()
