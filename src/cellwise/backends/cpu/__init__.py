"""Fused kernels for any cell, forward and backward, compiled by LLVM in this process.

compiler  what `compiled` asks of a compiler     vectors   each op as vector instructions
kernel    a program as LLVM code                 products  the loops over an inner dimension (tiles)
compile   LLVM code as a function                pack      weights in the order the kernels read
target    the processor                          launch    a kernel's arguments; threads
stages    all of it as text                      stepper   one step at a time (digest)
in_place  kernels that pack no weights, for few rows (in_place_products, few_rows)
small_calls         calls of few rows as one chain, with small_backward, small_run, small_jobs, small_beside,
                    small_products and copy_rows; and all layers of a stack as one call: small_stack, wave (who does
                    which block of steps) and masks (dropout between them)
small_ragged        those whose rows have several lengths, with ragged_gradients and step_rows
gradient_products   gradients of weights and of the input from those at gates (block_products)
bf16      numbers of bfloat16; and as bf16_kernel, bf16_products and bf16_pack what differs with them
amx       tile registers; and as amx_products and amx_kernel what goes by them, as amx_support who has them
three_kernel   float32 products of three of bfloat16 each on these, with three_pack and three_run
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from cellwise.backends.base import (
    Call,
    CallContext,
    LayerSpec,
    PlainBatch,
    Result,
    Shortcut,
    Stepper,
    Weights,
)
from cellwise.backends.compiled import Compiled
from cellwise.backends.compiled.compiler import KernelCompiler
from cellwise.backends.cpu.heads import parts_for
from cellwise.cells.lstm import LSTM
from cellwise.cells.rnn import RNN
from cellwise.torch_internals import is_autocast_enabled

if TYPE_CHECKING:
    from cellwise.backends.compiled.layer_pass import LayerPass

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

    def detail(self, stack: LayerSpec, context: CallContext, steps: int, batch: int) -> str | None:
        from cellwise.backends.cpu.compiler import llvm_compiler
        from cellwise.backends.cpu.target import host

        shared = llvm_compiler(host()).described(stack, context, steps, batch)
        from cellwise.backends.cpu.amx_support import in_words, three_in_words
        from cellwise.backends.cpu.three_run import goes_by_three

        how = None
        if context.dtype is torch.bfloat16 or self._casts(context):
            how = in_words(host())
        elif context.dtype is torch.float32 and goes_by_three(batch):
            how = three_in_words(host())
        return "; ".join(filter(None, (shared, how))) or None

    @staticmethod
    def _casts(context: CallContext) -> bool:
        """Whether autocast wants float32 layers in bfloat16."""
        return context.autocast is torch.bfloat16 and context.dtype is torch.float32

    def prepare(self, stack: LayerSpec, context: CallContext) -> Any:
        made = super().prepare(stack, context)
        # Autocast leaves float64 as it is; and there are no kernels for float16, its other choice.
        if context.autocast is not torch.bfloat16 or context.dtype is torch.float64:
            return made
        # Torch's operators give bfloat16 for an LSTM and an RNN. A GRU's states come out in the dtype in which they
        # went in, as those of any equations do that multiply what was cast with what was not.
        return _Casting(made, made.of_dtype(torch.bfloat16), stack.graph.fingerprint not in _cast_by_torch())

    def shortcut(self, stack: LayerSpec, prepared: Any, batch: PlainBatch) -> Shortcut | None:
        # Calls that have a short way are told apart by whether autocast is on, not by what it wants where.
        return None if is_autocast_enabled() else super().shortcut(stack, prepared, batch)

    def parts(self, stack: LayerSpec, rows: int | None) -> int:
        return 1 if stack.proj_size else parts_for(stack.graph, stack.hidden_size, rows)

    def run(self, stack: LayerSpec, call: Call) -> Result:
        if not isinstance(call.prepared, _Casting):
            return super().run(stack, call)
        from cellwise.backends.compiled.autocast import run_cast

        _, cast, keeps_dtype = call.prepared
        return run_cast(stack, call, cast, "cpu", call.sequences.data.dtype if keeps_dtype else None)

    def stepper(
        self,
        stack: LayerSpec,
        prepared: Any,
        weights: tuple[Weights, ...],
        batch: int,
        watched: Sequence[Tensor],
    ) -> Stepper | None:
        made = prepared.made if isinstance(prepared, _Casting) else prepared
        return super().stepper(stack, made, weights, batch, watched)


class _Casting(NamedTuple):
    """What is known of a layer that is called under autocast: `cast` has the dtype of what is multiplied."""

    made: LayerPass
    cast: LayerPass
    keeps_dtype: bool


@cache
def _cast_by_torch() -> frozenset[str]:
    """The equations whose results torch's operators cast."""
    cells = (LSTM(), RNN(nonlinearity="tanh"), RNN(nonlinearity="relu"))
    return frozenset(cell.graph.fingerprint for cell in cells)
