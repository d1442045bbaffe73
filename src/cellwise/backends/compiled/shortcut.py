"""The short path of plain batches through a stack: schedules and shapes are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from cellwise.backends.base import LayerSpec, PlainBatch, Result, Shortcut
from cellwise.backends.compiled.layer_pass import LayerPass
from cellwise.backends.compiled.plain import Forward, run_forward
from cellwise.backends.compiled.time_schedule import TimeSchedule, even_schedule, schedule_of
from cellwise.plan import state_sizes


@lru_cache(maxsize=64)
def _zeros(batch: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """States that nobody gave. They are only read, and nobody gets them."""
    with torch.inference_mode(False):
        return torch.zeros(batch, size, dtype=dtype, device=device)


class CompiledShortcut(Shortcut):
    """A stack of layer passes on batches of one form."""

    reads_memory = True

    def __init__(self, stack: LayerSpec, made: LayerPass, batch: PlainBatch) -> None:
        self._stack, self._kernels, self._bias = stack, made.kernels, made.bias
        self._schedules = [_schedule_of(batch, reverse) for reverse in (False, True)[: stack.directions]]
        self._stems, self._alone = len(made.stems), stack.num_layers * stack.directions == 1
        self._sizes = state_sizes(stack.graph, stack.hidden_size, stack.proj_size)
        self._dense = batch.sizes is None
        self._turned = batch.batch_first and self._dense
        self._rows, self._batch = self._schedules[0].rows, batch.batch
        self._lead = (batch.steps, batch.batch) if self._dense else (self._rows,)
        # What the caller gets of a single layer pass comes from it as it is wanted.
        self._given = (*self._lead, self._sizes[0]) if self._alone else None

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        dropout: float,
        training: bool,
        sizes: Tensor | None,
    ) -> Result:
        if self._turned:
            x = x.transpose(0, 1)
        if self._dense:
            x = x.reshape(self._rows, x.shape[2])
        records = torch.is_grad_enabled()
        if self._alone:
            first = [state[0] for state in states]
            output, *finals = self._direction(self._schedules[0], x, first, weights, records)
        else:
            output, finals = self._stacked(x, states, weights, records, dropout if training else 0.0)
        return output.transpose(0, 1) if self._turned else output, tuple(finals)

    def _direction(
        self,
        schedule: TimeSchedule,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        records: bool,
    ) -> Sequence[Tensor]:
        kernels, bias = self._kernels, self._bias
        if not states:
            states = [_zeros(self._batch, size, x.dtype, x.device) for size in self._sizes]
        if records and any([each.requires_grad for each in (*weights, x, *states)]):  # noqa: C419  quicker
            found: Sequence[Tensor] = Forward.apply(
                kernels, bias, schedule, None, self._given, x, *states, *weights
            )
            return found
        output, finals, _ = run_forward(kernels, bias, schedule, x, states, weights, None, False)
        if self._given is None:
            return output, *finals
        return output.resize_(self._given), *[final.unsqueeze_(0) for final in finals]

    def _stacked(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], records: bool, dropout: float
    ) -> tuple[Tensor, list[Tensor]]:
        stack, found = self._stack, []
        for layer in range(stack.num_layers):
            outputs = []
            for direction, schedule in enumerate(self._schedules):
                number = layer * stack.directions + direction
                taken = weights[number * self._stems : (number + 1) * self._stems]
                first = [state[number] for state in states]
                output, *finals = self._direction(schedule, x, first, taken, records)
                outputs.append(output)
                found.append(finals)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
            if dropout and layer < stack.num_layers - 1:
                x = torch.nn.functional.dropout(x, dropout)
        if getattr(x.grad_fn, "reads_output", False):
            x = x.clone()
        x = x.view(*self._lead, x.shape[1])
        return x, [torch.stack(each) for each in zip(*found, strict=True)]


def _schedule_of(batch: PlainBatch, reverse: bool) -> TimeSchedule:
    if batch.sizes is None:
        return even_schedule(batch.steps, batch.batch, reverse)
    offsets = torch.tensor([0, *batch.sizes], device="cpu").cumsum(0)
    return schedule_of(offsets, batch.batch, reverse)
