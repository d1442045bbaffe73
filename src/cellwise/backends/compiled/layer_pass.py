"""One layer in one direction, from a backend's call to the kernels: by the short way, or as an operator of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.base import Result, Sequences, Weights
from cellwise.backends.compiled import compiler as compilers
from cellwise.backends.compiled.both import Both, infer_both
from cellwise.backends.compiled.cell_kernels import CellKernels, kernels_for, key_of
from cellwise.backends.compiled.compiler import SmallCall, SmallPass
from cellwise.backends.compiled.plain import (
    Forward,
    PassCall,
    is_plain,
    lengths_of,
    lie_in_memory,
    run_forward,
)
from cellwise.backends.compiled.time_schedule import TimeSchedule, even_schedule, schedule_of
from cellwise.graph import StepGraph
from cellwise.torch_internals import tracing_state


@dataclass(frozen=True, eq=False)
class LayerPass:
    """What is known of a layer before it is called.

    key: what the operator knows the cell by, if calls are traced; plain data, so that tracing needs no planning.
    """

    kernels: CellKernels
    name: str  # of the backend
    bias: bool
    stems: tuple[str, ...]
    key: str

    @staticmethod
    def of(
        graph: StepGraph,
        dtype: torch.dtype,
        name: str,
        bias: bool,
        projected: bool,
        recompute: bool,
        traced: bool,
    ) -> LayerPass:
        """That of a layer whose kernels a compiler makes.

        Args:
            name: that of the compiler's backend.
            traced: whether calls are recorded into a program.
        """
        kernels = kernels_for(graph, dtype, compilers.load(name), projected, recompute)
        key = key_of(graph, projected, recompute, name) if traced else ""
        return LayerPass(kernels, name, bias, kernels.stems[bias], key)

    def of_dtype(self, dtype: torch.dtype) -> LayerPass:
        """The same layer in another element type."""
        made = self.kernels
        return LayerPass.of(
            made.graph, dtype, self.name, self.bias, made.projected, made.recompute, bool(self.key)
        )

    def run(
        self, _: Any, weights: Weights, sequences: Sequences, initial: tuple[Tensor, ...], reverse: bool
    ) -> Result:
        """Run over all steps; a tape is kept if anything needs a gradient."""
        if torch.compiler.is_compiling():
            return self._traced(self.key, weights, sequences, initial, reverse)
        data, taken = sequences.data, tuple(weights.by_stem.values())  # in the order of `stems`
        tensors = (data, *initial, *taken)
        if not (is_plain(data) and lie_in_memory(tensors)):
            kernels = self.kernels
            key = self.key or key_of(kernels.graph, kernels.projected, kernels.recompute, self.name)
            return self._traced(key, weights, sequences, initial, reverse)
        schedule = _schedule(sequences, reverse)
        resets = None if sequences.resets is None else _resets(sequences, reverse)
        small = self._plan(sequences, schedule, tensors)
        if _needs_gradient(tensors):
            call = PassCall(self.kernels, self.bias, schedule, small=small)
            output, *finals = Forward.apply(call, resets, *tensors)
        elif small is not None:
            output, _, finals, _ = small.infer(data, initial, taken)
        else:
            output, finals, _ = run_forward(
                self.kernels, self.bias, schedule, data, initial, taken, resets, False
            )
        return output, tuple(finals)

    def run_both(
        self, weights: Sequence[Weights], sequences: Sequences, initial: Sequence[tuple[Tensor, ...]]
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]] | None:
        """Run both directions at once; None where one is to run after the other."""
        if torch.compiler.is_compiling():
            return None
        data, kernels, taken = sequences.data, self.kernels, [tuple(e.by_stem.values()) for e in weights]
        others = [each for pair in zip(initial, taken, strict=True) for part in pair for each in part]
        if not (is_plain(data) and lie_in_memory((data, *others))):
            return None
        ways = (False, True)
        schedules = [_schedule(sequences, reverse) for reverse in ways]
        lengths = lengths_of(kernels, self.bias, data, initial[0], taken[0])
        records = _needs_gradient((data, *others))
        if not kernels.compiler.runs_at_once(kernels, lengths, schedules[0], records):
            return None
        calls = [PassCall(kernels, self.bias, schedule) for schedule in schedules]
        resets = [None if sequences.resets is None else _resets(sequences, reverse) for reverse in ways]
        if records:
            output, *finals = Both.apply(calls, resets, data, *others)
        else:
            output, *finals = infer_both(calls, resets, data, initial, taken)
        count = len(initial[0])
        return output, [tuple(finals[:count]), tuple(finals[count:])]

    def _plan(
        self, sequences: Sequences, schedule: TimeSchedule, tensors: Sequence[Tensor]
    ) -> SmallPass | None:
        """The plan for calls of this shape, if the compiler has one for any: those under autocast come here."""
        if not self.kernels.compiler.plans_every_call or sequences.resets is not None:
            return None
        if not all(each.is_contiguous() for each in tensors):
            return None
        hidden = tensors[1].shape[-1]
        return _plan(self.kernels, self.bias, sequences.data.shape[-1], hidden, schedule, tensors[0].device)

    def _traced(
        self,
        key: str,
        weights: Weights,
        sequences: Sequences,
        initial: tuple[Tensor, ...],
        reverse: bool,
    ) -> Result:
        """The same as one operator of torch."""
        states, taken = list(initial), [weights.by_stem[stem] for stem in self.stems]
        # What torch.jit.trace records is run with and without gradients, and keeps a tape by itself.
        tape = tracing_state() is None and _needs_gradient((sequences.data, *states, *taken))
        resets, offsets = _resets(sequences, reverse), _offsets(sequences)
        output, *rest = torch.ops.cellwise.direction.default(
            key, sequences.data, offsets, states, resets, taken, self.bias, reverse, tape
        )
        return output, tuple(rest[: len(states)])


def _schedule(sequences: Sequences, reverse: bool) -> TimeSchedule:
    if sequences.sizes is None:
        return even_schedule(sequences.steps, sequences.batch, reverse)
    return schedule_of(_offsets(sequences), sequences.batch, reverse)


@lru_cache(maxsize=64)
def _plan(
    kernels: CellKernels, bias: bool, width: int, hidden: int, schedule: TimeSchedule, device: torch.device
) -> SmallPass | None:
    call = SmallCall(kernels, bias, (width, hidden, 0), schedule, None, True, device)
    return None if kernels.projected else kernels.compiler.small_pass(call)


def _needs_gradient(tensors: Sequence[Tensor]) -> bool:
    return torch.is_grad_enabled() and any(each.requires_grad for each in tensors)


def _resets(sequences: Sequences, reverse: bool) -> Tensor | None:
    if sequences.resets is None:
        return None
    resets = sequences.resets.to(torch.uint8)
    if reverse:
        # Before a sequence's first step there is nothing for the reverse direction to be cut off from.
        first = sequences.batch if sequences.sizes is None else sequences.sizes[:1].to(resets.device)
        # In torch.export len() is a constant.
        resets = resets * (torch.arange(resets.shape[0], device=resets.device) >= first)
    return resets


def _offsets(sequences: Sequences) -> Tensor:
    """(T + 1,): the first row of each time among all valid steps, and their number; on the CPU."""
    if sequences.sizes is not None:
        return torch.nn.functional.pad(torch.cumsum(sequences.sizes, 0), (1, 0))
    return torch.arange(sequences.steps + 1, device="cpu") * sequences.batch
