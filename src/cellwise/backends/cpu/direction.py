"""One layer in one direction, handed to the operator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cellwise.backends.base import Result, RunDirection, Sequences, Stack, Weights
from cellwise.backends.cpu.engine import Engine, engine_of, key_of
from cellwise.backends.cpu.operator import Asked, direction, is_plain, stems
from cellwise.backends.cpu.twice import define
from cellwise.graph import StepGraph


@dataclass(frozen=True)
class Direction:
    """What the operator wants to know of a layer: plain data, so that tracing it needs no planning."""

    key: str
    stems: tuple[str, ...]
    bias: bool

    @staticmethod
    def of(stack: Stack, dtype: torch.dtype, definition: RunDirection, recompute: bool = False) -> Direction:
        key = key_of(stack.graph, bool(stack.proj_size), recompute)
        names = stems(engine_of(key, dtype), stack.bias)
        define(key, stack.graph, definition, stack.bias, names)
        return Direction(key, names, stack.bias)

    def engine(self, dtype: torch.dtype) -> Engine:
        return engine_of(self.key, dtype)

    def run(
        self,
        graph: StepGraph,
        weights: Weights,
        sequences: Sequences,
        initial: tuple[Tensor, ...],
        reverse: bool,
    ) -> Result:
        """Run over all steps; a tape is kept if anything needs a gradient."""
        states, taken = list(initial), [weights.by_stem[stem] for stem in self.stems]
        tape = (
            torch.is_grad_enabled()
            and any(each.requires_grad for each in (sequences.data, *states, *taken))
            # What torch.jit.trace records is run with and without gradients, and keeps a tape by itself.
            and torch._C._get_tracing_state() is None
        )
        asked = Asked(self.key, self.bias, reverse, len(states))
        resets, offsets = _resets(sequences, reverse), _offsets(sequences)
        output, *rest = direction(asked, sequences.data, offsets, states, resets, taken, tape)
        return output, tuple(rest[: len(states)])


def _resets(sequences: Sequences, reverse: bool) -> Tensor | None:
    if sequences.resets is None:
        return None
    resets = sequences.resets.to(torch.uint8)
    if reverse:
        # Before a sequence's first step there is nothing for the reverse direction to be cut off from.
        first = sequences.batch if sequences.sizes is None else sequences.sizes[:1]
        resets = resets * (
            torch.arange(resets.shape[0], device="cpu") >= first
        )  # torch.export: len() is a constant
    return resets


def _offsets(sequences: Sequences) -> Tensor:
    """(T + 1,): the first row of each time among all valid steps, and their number."""
    if sequences.sizes is not None:
        return torch.nn.functional.pad(torch.cumsum(sequences.sizes, 0), (1, 0))
    if not is_plain(sequences.data):
        return torch.arange(sequences.steps + 1, device="cpu") * sequences.batch
    return _even_offsets(sequences.steps, sequences.batch)


@lru_cache(maxsize=64)
def _even_offsets(steps: int, batch: int) -> Tensor:
    with torch.inference_mode(
        False
    ):  # kept, and autograd saves no tensor that was made within inference mode
        return torch.arange(steps + 1, device="cpu") * batch
