"""What runs a layer in rows of one width, as one that takes and gives true sizes: the short way and single steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cellwise.backends.base import Follower, Result, Shortcut, Stepper
from cellwise.nn.padding import copied, padded_states, true_output, true_states
from cellwise.plan import Padding


class InTrueSizes(Shortcut):
    """The short way of a layer in rows of one width, from states to states and outputs of true sizes."""

    def __init__(self, shortcut: Shortcut, padding: Padding) -> None:
        self._shortcut, self._padding = shortcut, padding
        self.reads_memory = shortcut.reads_memory

    def run(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        dropout: float,
        training: bool,
        sizes: Tensor | None,
        resets: Tensor | None = None,
    ) -> Result:
        rows = padded_states(tuple(states), self._padding)
        output, finals = self._shortcut.run(x, rows, weights, dropout, training, sizes, resets)
        finals = true_states(finals, self._padding)
        if output.is_contiguous():
            return true_output(output, self._padding), finals
        # Steps come first in memory, as in all calls.
        return true_output(output.transpose(0, 1), self._padding).transpose(0, 1), finals


class StepperInTrueSizes(Stepper):
    """Steps of a layer in rows of one width."""

    def __init__(self, stepper: Stepper, padding: Padding, batch: int, like: Tensor) -> None:
        self.stepper, self._padding, self._batch = stepper, padding, batch
        self.reads_all = stepper.reads_all
        width, sizes = padding.width, padding.outputs
        self._is_whole = set(sizes) == {width}
        with torch.inference_mode(False):
            self._rows = torch.empty(batch, len(sizes) * width, dtype=like.dtype, device=like.device)
        self._is_cpu = like.is_cpu
        self._places = [(place * width, size) for place, size in enumerate(sizes)]
        self._cuts = self._cuts_of(self._rows)
        self._starts = [(sum(sizes[:place]), size) for place, size in enumerate(sizes)]

    @property
    def is_recorded(self) -> bool:  # type: ignore[override]
        return self.stepper.is_recorded

    def _cuts_of(self, rows: Tensor) -> list[Tensor]:
        """Where each output is in the rows of a step."""
        return [rows.narrow(1, start, size) for start, size in self._places]

    def step(self, x: Tensor, y: Tensor) -> bool | None:
        if self._is_whole:
            return self.stepper.step(x, y)
        rows, cuts = self._rows, self._cuts
        if not self._is_cpu:  # a step on another of the device's queues may still read those of the last one
            rows = torch.empty_like(rows)
            cuts = self._cuts_of(rows)
        done = self.stepper.step(x, rows)
        if not done:
            return done
        y = y.view(self._batch, -1)
        if len(cuts) == 1:
            y.copy_(cuts[0])
        else:
            for cut, (start, size) in zip(cuts, self._starts, strict=True):
                y.narrow(1, start, size).copy_(cut)
        return True

    def give(self, beside: Sequence[Any]) -> None:
        given = [
            copied(each.reshape(self._batch, -1), self._padding.width, 1)
            if isinstance(each, Tensor) and each.numel() > self._batch
            else each
            for each in beside
        ]
        self.stepper.give(given)

    def holds(self) -> bool:
        return self.stepper.holds()

    def follower(self, table: Tensor, weight: Tensor, most: int) -> Follower | None:
        return self.stepper.follower(table, weight, most) if self._is_whole else None

    @property
    def states(self) -> tuple[Tensor, ...]:
        return true_states(self.stepper.states, self._padding)

    @states.setter
    def states(self, given: tuple[Tensor, ...]) -> None:
        self.stepper.states = padded_states(given, self._padding)
