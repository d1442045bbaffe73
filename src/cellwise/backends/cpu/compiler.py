"""Kernels by LLVM, for this process: what `compiled` asks of a compiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache

import torch
from torch import Tensor

from cellwise.backends.base import CallContext, LayerSpec, Stepper
from cellwise.backends.compiled.cell_kernels import CellKernels, kernels_for
from cellwise.backends.compiled.compiler import (
    CompiledKernel,
    GradientProducts,
    KernelCompiler,
    RunShape,
    Sizes,
    SmallCall,
    SmallPass,
)
from cellwise.backends.compiled.scratch import POOL, SCRATCH
from cellwise.backends.compiled.stack import SmallStack
from cellwise.backends.compiled.time_schedule import TimeSchedule, even_schedule
from cellwise.backends.cpu import DTYPES
from cellwise.backends.cpu.amx_kernel import copied_numbers
from cellwise.backends.cpu.amx_support import may_have_tiles, with_tiles
from cellwise.backends.cpu.bf16 import BYTES, WORD
from cellwise.backends.cpu.bf16_kernel import SCRATCH_BYTES, emit_bf16, with_wide_states
from cellwise.backends.cpu.bf16_pack import Bf16Packer, emit_bf16_pack
from cellwise.backends.cpu.bf16_products import bf16_routine
from cellwise.backends.cpu.blocks import in_blocks
from cellwise.backends.cpu.by_units import SUFFIX, emit_by_units, is_worth_it
from cellwise.backends.cpu.code import symbol
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.few_rows import MOST_SMALL
from cellwise.backends.cpu.in_place import SUFFIX as IN_PLACE
from cellwise.backends.cpu.in_place import InPlacePacker, emit_in_place, in_place
from cellwise.backends.cpu.in_place_products import in_place_routine
from cellwise.backends.cpu.kernel import emit, widths_of
from cellwise.backends.cpu.launch import CpuRun, launch, work_of
from cellwise.backends.cpu.pack import Packer, Packing, emit_pack
from cellwise.backends.cpu.products import routine
from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.threads import is_for_many, threads_for
from cellwise.backends.cpu.three_kernel import ThreeEmitter, emit_three
from cellwise.backends.cpu.three_pack import ThreePacker, emit_three_pack
from cellwise.backends.cpu.three_run import PreciseRun
from cellwise.backends.cpu.tiles import TILES, groups_of, room_vectors
from cellwise.backends.cpu.transposed import is_transposed, transposed_sums
from cellwise.backends.cpu.transposed_products import transposed_routine
from cellwise.backends.precision import allows_two_parts
from cellwise.plan.forward import forward_program
from cellwise.plan.hoist import hoisted
from cellwise.plan.program import Program, Width

# Takes the addresses of its pointers and of its sizes; the interpreter lock is let go.
Native = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Kernel(CompiledKernel):
    """A compiled program. Longer rows than a vector are whole vectors (`LlvmCompiler.row_width`)."""

    program: Program
    dtype: torch.dtype
    target: Target
    call: Native
    is_three: bool = False  # float32 whose products are three of bfloat16
    reads_in_place: bool = False  # weights where they lie; nothing is packed

    @property
    def word(self) -> int:
        """Bytes of the numbers that it computes with."""
        return word_of(self.dtype)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of a number of a scratch row."""
        return SCRATCH_BYTES if self.dtype is torch.bfloat16 else self.word

    @property
    def lanes(self) -> int:
        return self.target.lanes(self.word)

    @cached_property
    def vectors(self) -> int:
        """Sums that a row and a pair of tiles have, in the stage that has the most."""
        return room_vectors(self.program, self.target)

    def room_bytes(self, sizes: Sizes) -> int:
        """Of the room that a row has within a step: for sums, and for copies of operands."""
        lengths = dict(zip((Width.INPUT, Width.HIDDEN, Width.PROJECTED), sizes[:3], strict=True))
        copied = copied_numbers(self.program, self.target, lengths) if self.multiplies_bf16 else 0
        copied *= ThreeEmitter.copies_of_a_row if self.is_three else 1
        sums = self.vectors * self.lanes
        if self.reads_in_place:
            sums = max(sums, transposed_sums(self.program) * sizes.padded)
        return sums * self.word + copied * BYTES

    @property
    def multiplies_bf16(self) -> bool:
        """Whether what it multiplies is bfloat16."""
        return self.is_three or self.dtype is torch.bfloat16

    def sums_ahead(self, padded: int) -> int:
        """Numbers that the input of a row adds to the sums of a step, whose units take up so many."""
        vectors = sum(
            group.vectors for stage in self.program.before_loop for group in groups_of(stage, self.target)
        )
        return -(-padded // (TILES * self.lanes)) * vectors * self.lanes

    @cached_property
    def pack(self) -> Native:
        """The compiled loop over the jobs of a packing."""
        return _pack(self.dtype, self.target, self.is_three)

    def packing(self, sizes: Sizes, stems: tuple[str, ...]) -> Packing:
        """How the weights `stems`, all but a cell's own, are packed for this kernel."""
        return _packing(self, sizes[:3], stems)

    @cached_property
    def hoisted(self) -> Kernel:
        """The same, with the products of the input for a block of steps at once."""
        return compiled(hoisted(self.program), self.dtype, self.target)

    @cached_property
    def in_place(self) -> Kernel:
        """The same, which packs no weights."""
        program, size = self.program, self.dtype.itemsize
        code = object_code(emit_in_place(program, size, self.target), self.target)
        call = load(symbol(program.name) + IN_PLACE, code, *_in_place_routines(program, size, self.target))
        return replace(self, call=call, reads_in_place=True)

    @cached_property
    def by_units(self) -> Native:
        """The same program for two threads that share the units of all rows."""
        size = self.dtype.itemsize
        if self.reads_in_place:
            code = object_code(emit_in_place(self.program, size, self.target, by_units=True), self.target)
            shared = _in_place_routines(self.program, size, self.target)
            return load(symbol(self.program.name) + SUFFIX + IN_PLACE, code, *shared)
        code = object_code(emit_by_units(self.program, size, self.target), self.target)
        shared = [routine(width, size, self.target) for width in widths_of(self.program, self.target)]
        return load(symbol(self.program.name) + SUFFIX, code, *shared)

    @cached_property
    def by_three(self) -> Kernel:
        """The same program in float32 with products of three of bfloat16 each, on tile registers."""
        target = with_tiles(self.target)
        code = object_code(emit_three(self.program, target), target)
        shared = [bf16_routine(width, target) for width in widths_of(self.program, target)]
        run = load(symbol(self.program.name), code, *shared)
        return Kernel(self.program, self.dtype, target, run, is_three=True)

    def for_shape(self, shape: RunShape) -> Kernel:
        """This, or what multiplies the inputs of such calls for a block of steps at once, or packs no weights."""
        if self.multiplies_bf16:  # products of bfloat16 are within their steps only
            return self
        ahead = in_blocks(self.program, shape, self.word)
        if in_place(self.program, shape, self.word, self.lanes, ahead):
            return self.in_place
        return self.hoisted if ahead else self

    def open(self, shape: RunShape) -> CpuRun | PreciseRun:
        if self.dtype is torch.float32 and not self.is_three and may_have_tiles():
            return PreciseRun(self, shape)
        return CpuRun(self.for_shape(shape), shape)


def compiled(program: Program, dtype: torch.dtype, target: Target) -> Kernel:
    """The kernel of a program for a target."""
    if dtype is torch.bfloat16:
        program, target = with_wide_states(program), with_tiles(target)
        code = object_code(emit_bf16(program, target), target)
        shared = [bf16_routine(width, target) for width in widths_of(program, target)]
    else:
        size = dtype.itemsize
        code = object_code(emit(program, size, target), target)
        shared = [routine(width, size, target) for width in widths_of(program, target)]
    return Kernel(program, dtype, target, load(symbol(program.name), code, *shared))


@lru_cache(maxsize=256)
def _packing(kernel: Kernel, lengths: tuple[int, int, int], stems: tuple[str, ...]) -> Packing:
    graph = kernel.program.graph
    rows = {"weight_ih": graph.input_gates, "weight_hh": graph.state_gates, "weight_hr": ("",)}
    rows |= {"bias_ih": graph.input_gates, "bias_hh": graph.state_gates}
    by_width = dict(zip((Width.INPUT, Width.HIDDEN, Width.PROJECTED), lengths, strict=True))
    packer: type[Packer] = InPlacePacker if kernel.reads_in_place else Packer
    if kernel.multiplies_bf16:
        packer = ThreePacker if kernel.is_three else Bf16Packer
    return packer(kernel.program, kernel.target, kernel.word, rows, by_width, stems).plan()


def _in_place_routines(program: Program, element_bytes: int, target: Target) -> list[bytes]:
    """What kernels that read weights where they lie call."""
    kinds = {is_transposed(stage) for stage in program.stages if stage.terms}
    each = {False: in_place_routine, True: transposed_routine}
    return [each[kind](element_bytes, target) for kind in sorted(kinds)]


@dataclass(frozen=True)
class LlvmCompiler(KernelCompiler):
    """Compiles for a target, whose vectors rows are padded to."""

    target: Target

    device_type = "cpu"
    dtypes = DTYPES

    @property
    def layout(self) -> str:  # type: ignore[override]
        return str(self.target.vector_bytes)

    def row_width(self, size: int, dtype: torch.dtype) -> int:
        lanes = self.target.lanes(word_of(dtype))
        return -(-size // lanes) * lanes

    def compile(self, program: Program, dtype: torch.dtype) -> Kernel:
        return compiled(program, dtype, self.target)

    def begin(self) -> None:
        SCRATCH.begin()

    def empty(self, rows: int, width: int, like: Tensor, scratch: bool) -> Tensor:
        if scratch:
            return SCRATCH.tensor(rows, width, like.dtype)
        return POOL.tensor(rows, width, dtype=like.dtype)

    def gradient_products(self, dtype: torch.dtype) -> GradientProducts | None:
        if dtype is torch.bfloat16:
            return None
        from cellwise.backends.cpu.gradient_products import CpuGradientProducts

        return CpuGradientProducts(dtype, self.target)

    def settings(self) -> bool:
        return may_have_tiles() and allows_two_parts()

    def small_pass(self, call: SmallCall) -> SmallPass | None:
        from cellwise.backends.cpu.small_calls import small_pass

        return small_pass(call)

    def small_stack(self, calls: Sequence[SmallCall], records: bool, is_masked: bool) -> SmallStack | None:
        from cellwise.backends.cpu.small_stack import small_stack

        return small_stack(calls, records, is_masked)

    def runs_at_once(
        self, kernels: CellKernels, lengths: tuple[int, int, int], schedule: TimeSchedule, records: bool
    ) -> bool:
        if kernels.graph.others:  # outputs of several kinds lie otherwise side by side
            return False
        width, hidden, projected = lengths
        work = work_of(kernels.graph, schedule.rows, width, hidden, projected or hidden)
        if schedule.rows <= MOST_SMALL:
            return is_for_many(work, schedule.batch, records, both=True)
        return threads_for(2 * work) > 1

    def launch(self, runs: Sequence[tuple[CpuRun | PreciseRun, int, int]]) -> None:  # type: ignore[override]
        launch(runs)

    def described(self, stack: LayerSpec, context: CallContext, steps: int, batch: int) -> str | None:
        """How threads share the first layer of such a call; None if one does it all."""
        graph, output = stack.graph, stack.proj_size or stack.hidden_size
        lengths = stack.input_size, stack.hidden_size, output
        work = work_of(graph, steps * batch, *lengths)
        kernels = kernels_for(graph, context.dtype, self, bool(stack.proj_size), context.recompute)
        sizes = stack.input_size, stack.hidden_size, stack.proj_size
        schedule, records = even_schedule(steps, batch, False), torch.is_grad_enabled()
        if stack.bidirectional and self.runs_at_once(kernels, sizes, schedule, records):
            threads = max(1, threads_for(2 * work) // 2)
            return f"both directions at once, {'a thread' if threads == 1 else f'{threads} threads'} for each"
        if stack.num_layers > 1 and not stack.bidirectional:
            from cellwise.backends.cpu.small_stack import threads_at_once

            all_sizes = [sizes, *[(output, *sizes[1:])] * (stack.num_layers - 1)]
            at_once = threads_at_once(kernels, all_sizes, schedule, records)
            if at_once > 1:
                return f"{at_once} threads, each in a layer of its own, block by block of the steps"
        call = SmallCall(kernels, stack.bias, sizes, schedule, None, True, context.device, context.resets)
        small = self.small_pass(call)
        if small is not None and (small.records if records else small.infers):
            return None
        threads = threads_for(work)
        can = not context.resets and context.dtype is not torch.bfloat16
        can = can and not forward_program(graph, None, bool(stack.proj_size)).rows
        if can and is_worth_it(graph, lengths, steps, batch, threads):
            return "two threads, each half of the units"
        return f"{min(threads, batch)} threads share the rows" if min(threads, batch) > 1 else None

    def stepper(
        self,
        kernels: CellKernels,
        stack: LayerSpec,
        weights: Sequence[Sequence[Tensor]],
        batch: int,
        watched: Sequence[Tensor],
    ) -> Stepper | None:
        if kernels.dtype is torch.bfloat16:
            return None
        from cellwise.backends.cpu.stepper import CpuStepper

        return CpuStepper(kernels, stack, weights, batch, watched)


@cache
def llvm_compiler(target: Target) -> LlvmCompiler:
    """The compiler for a target."""
    return LlvmCompiler(target)


@cache
def _pack(dtype: torch.dtype, target: Target, is_three: bool) -> Native:
    if is_three:
        module = emit_three_pack(target)
    else:
        module = emit_bf16_pack(target) if dtype is torch.bfloat16 else emit_pack(dtype.itemsize, target)
    return load("pack", object_code(module, target))


def word_of(dtype: torch.dtype) -> int:
    """Bytes of the numbers that kernels of an element type compute with."""
    return max(dtype.itemsize, WORD)
