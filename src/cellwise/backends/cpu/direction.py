"""One layer in one direction, handed to the operator."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from cellwise.backends.base import Result, Sequences, Weights
from cellwise.backends.cpu.engine import engine_of, remember
from cellwise.backends.cpu.operator import direction, stems
from cellwise.plan import SequencePlan


def run_direction(
    plan: SequencePlan, weights: Weights, sequences: Sequences, initial: tuple[Tensor, ...], reverse: bool
) -> Result:
    """Run over all steps; a tape is kept if anything needs a gradient."""
    key = remember(plan.graph)
    bias = weights.get("bias_ih") is not None or weights.get("bias_hh") is not None
    taken = [weights.by_stem[stem] for stem in stems(engine_of(key, sequences.data.dtype), bias)]
    tensors = (sequences.data, *initial, *taken)
    tape = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    resets, offsets = _resets(sequences, reverse), _offsets(sequences.batch_sizes)
    output, *finals, _ = direction(
        key, sequences.data, offsets, list(initial), resets, taken, bias, reverse, tape
    )
    return output, tuple(finals)


def _resets(sequences: Sequences, reverse: bool) -> Tensor | None:
    if sequences.resets is None:
        return None
    resets = sequences.resets.to(torch.uint8)
    if reverse and sequences.batch_sizes:
        # Before a sequence's first step there is nothing for the reverse direction to be cut off from.
        resets = resets.clone()
        resets[: sequences.batch_sizes[0]] = 0
    return resets


@lru_cache(maxsize=64)
def _offsets(batch_sizes: tuple[int, ...]) -> Tensor:
    sizes = torch.tensor((0, *batch_sizes), dtype=torch.int64)
    return torch.cumsum(sizes, 0)
