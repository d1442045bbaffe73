"""What small calls are given beside x, states and weights: values of each step, random numbers, marks of resets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cellwise.backends.compiled.beside import Beside
from cellwise.backends.compiled.compiler import SmallCall
from cellwise.backends.cpu.small_jobs import Count, Rows, WholeRows
from cellwise.plan.program import Program, StorageClass


class GivenBeside:
    """What stands beside x, as a chain is given it: rows where they lie, and of a number for all units whole vectors.

    places: by the name of a buffer, which of the operands it holds. counted: how many rows, where each call says that.
    """

    def __init__(self, beside: Beside | None, call: SmallCall, counted: Count | None = None) -> None:
        graph, kernels, hidden = call.kernels.graph, call.kernels, call.lengths[1]
        stems, schedule = kernels.stems[call.bias], call.schedule
        self.places = {} if beside is None else beside.operands()
        values = [stems.index(name) for name in graph.asked_inputs]
        self._widths = dict(zip(values, call.beside, strict=True))
        self._lanes, self._hidden, self._padded = kernels.padded(1), hidden, kernels.padded(hidden)
        self._rows: dict[int, Rows] = dict.fromkeys(self.places.values(), counted or schedule.rows)
        for draw in graph.asked_draws:
            if draw.per_sequence:
                self._rows[stems.index(draw.name)] = schedule.batch

    def rows_of(self, name: str, whole: WholeRows) -> str:
        """Under which name a kernel reads what a buffer holds."""
        place = self.places[name]
        if self._widths.get(place) == 1:
            return f"weight {place}"  # in whole vectors as `whole` makes it
        return whole.of(f"weight {place}", self._rows[place], self._hidden, self._padded)

    def gradient(self, place: int, found: Tensor | None, like: Tensor) -> Tensor | None:
        """The gradient at an operand, from what the kernel left: a copy of rows that are the next call's; zeros where
        no gradient reaches a value; None at what was drawn.
        """
        if place not in self._widths:
            return None
        if found is None:
            return torch.zeros_like(like, memory_format=torch.contiguous_format)
        is_sum = self._widths[place] == 1 < self._hidden
        return found if is_sum else found.clone(memory_format=torch.contiguous_format)

    def forms(self, program: Program) -> list[int]:
        """How wide the rows are of each value, in the order of a kernel's pointers."""
        values = [buffer.name for buffer in program.buffers if buffer.storage is StorageClass.BESIDE]
        return [self._lanes if self._widths[self.places[name]] == 1 else self._padded for name in values]

    def whole(self, weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """The operands as a kernel reads them."""
        if not self._widths:
            return weights
        found = list(weights)
        for place, width in self._widths.items():
            rows = found[place]
            found[place] = (rows.expand(-1, self._lanes) if width == 1 else rows).contiguous()
        return found


def restarted(states: Sequence[Tensor], resets: Tensor) -> list[Tensor]:
    """States (B, H), or (1, B, H), zero where a row's first step is marked."""
    marks = resets[: states[0].shape[-2]].bool().unsqueeze(-1)
    return [each.masked_fill(marks, 0) for each in states]
