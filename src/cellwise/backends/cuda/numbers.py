"""The numbers that kernels multiply: how they lie in memory, and by which instruction they meet."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cellwise.backends.precision import allows_tf32
from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import PROJECT


@dataclass(frozen=True)
class Number:
    """An element type and the precision of products.

    Args:
        name: of the conversions in `prelude.cuh`: f_NAME from float32 to memory, NAME_f back.
        product: of the warp's matrix product there, of 16 units, 8 rows and 32 bytes of the inner dimension.
        fast: whether tanh and sigmoid may be the processor's approximations, whose error (2^-11) is below that of the
            products.
    """

    name: str
    dtype: torch.dtype
    bytes: int
    product: str
    fast: bool


BF16 = Number("bf16", torch.bfloat16, 2, "mma_bf16", True)
F16 = Number("f16", torch.float16, 2, "mma_f16", True)
TF32 = Number("f32", torch.float32, 4, "mma_tf32_once", True)
F32 = Number("f32", torch.float32, 4, "mma_tf32_thrice", False)


def number_of(dtype: torch.dtype) -> Number:
    """What a call of this dtype computes with now: float32 as TF32 where torch's setting for products allows that."""
    if dtype is torch.float32:
        return TF32 if allows_tf32() else F32
    return BF16 if dtype is torch.bfloat16 else F16


def finer_values(graph: StepGraph) -> frozenset[Node]:
    """Values between -1 and 1 that nobody but a kernel reads from the tape: those of gates.

    In float16 they have eight times the digits that they have in bfloat16, of which 1 - v^2 and v (1 - v) lose most
    where a gate is nearly open or shut. Not so what products read, and what is compared: both passes are to compare
    the same number.
    """
    others = {node.inputs[0] for node in graph.of(PROJECT)} | {graph.output, *graph.others, *graph.new_states}
    others |= {operand for node in graph.nodes if node.is_mask for operand in node.inputs}
    others |= {node.inputs[0] for node in graph.reductions if node.op.name == "amax"}
    bounded = {node for node in graph.nodes if node.op.range and max(map(abs, node.op.range)) <= 1}
    return frozenset(bounded - others)
