"""How a run goes through time: where each step finds the states of its rows, and leaves them.

Rows whose step has a step before it come first in the batch, in either direction, so one number a step says which rows
begin there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Steps:
    """The rows of a batch: `offsets[t]` (T + 1,) is the first row of time t among all valid steps."""

    offsets: Tensor
    batch: int
    backwards: bool
    resets: Tensor | None
    reset_first: bool  # zero the states before a marked step, else after it

    @property
    def count(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def walk(self) -> Walk:
        return walk_of(self.offsets, self.batch, self.backwards)

    @cached_property
    def turned(self) -> Steps:
        """The same steps the other way round."""
        turned = Steps(self.offsets, self.batch, not self.backwards, self.resets, not self.reset_first)
        turned.__dict__["walk"] = self.walk.turned
        return turned


@dataclass(frozen=True, eq=False)
class Walk:
    """A way through time, as arrays of int64 over it.

    `limits`: how many rows have a step before this one. A history keeps the states of all steps, in the rows of the
    outputs: `before` and `after` are the first rows where a step finds and leaves them. A pair of buffers of B rows
    each keeps the last two: `pair_before` and `pair_after`.
    """

    offsets: np.ndarray
    batch: int
    backwards: bool
    limits: np.ndarray
    before: np.ndarray
    after: np.ndarray
    pair_before: np.ndarray
    pair_after: np.ndarray

    @cached_property
    def rows(self) -> int:
        """The valid steps of all rows."""
        return int(self.offsets[-1])

    @property
    def turned(self) -> Walk:
        """The same steps the other way round."""
        return _walk(self.offsets.tobytes(), self.batch, not self.backwards)

    @cached_property
    def addresses(self) -> dict[str, int]:
        """Where the arrays are, by name."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: each.ctypes.data for name, each in arrays.items() if isinstance(each, np.ndarray)}

    @cached_property
    def is_dense(self) -> bool:
        return self.rows == self.batch * (len(self.offsets) - 1)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(B,) the steps of each row."""
        sizes = np.diff(self.offsets)
        return (
            (sizes[:, None] > np.arange(self.batch)).sum(0) if len(sizes) else np.zeros(self.batch, np.int64)
        )

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """All steps as (first, end) of spans of about so many valid steps each, in the order in which they run."""
        count = max(1, round(self.rows / rows))
        if count == 1:
            return [(0, len(self.offsets) - 1)]
        wanted = self.rows * np.arange(count + 1) // count
        edges = np.unique(np.searchsorted(self.offsets, wanted)).tolist()
        # Times without a valid step, at the end, go with the last.
        found = list(itertools.pairwise([0, *edges[1:-1], len(self.offsets) - 1]))
        return found[::-1] if self.backwards else found

    def finals(self, history: Tensor, initial: Tensor, pair: bool = False) -> Tensor:
        """A copy of the states (B, size) after each row's last step; the initial ones where a row has none."""
        if self.rows == 0:
            return initial.clone()
        after = self.pair_after if pair else self.after
        if self.is_dense:
            first = int(after[0 if self.backwards else -1])
            found, size = history.narrow_copy(0, first, self.batch), initial.shape[1]
            return (
                found
                if found.shape[1] == size
                else found[:, :size].clone(memory_format=torch.contiguous_format)
            )
        last = np.zeros(self.batch, np.int64) if self.backwards else np.maximum(self.lengths - 1, 0)
        has_steps = self.lengths > 0
        rows = np.where(has_steps, after[last] + np.arange(self.batch), 0)
        found = history[torch.from_numpy(rows), : initial.shape[1]]
        return torch.where(torch.from_numpy(has_steps)[:, None], found, initial)

    @cached_property
    def predecessors(self) -> tuple[Tensor, Tensor, Tensor]:
        """For the valid steps: the history's row before each, those without one, and their rows in the batch."""
        sizes = np.diff(self.offsets)
        time = np.repeat(np.arange(len(sizes)), sizes)
        row = np.arange(self.rows) - self.offsets[:-1][time]
        begins = row >= self.limits[time]
        where = np.where(begins, 0, self.before[time] + row)
        return tuple(map(torch.from_numpy, (where, np.flatnonzero(begins), row[begins])))  # type: ignore[return-value]


def walk_of(offsets: Tensor, batch: int, backwards: bool) -> Walk:
    """The way through these steps, from the last to the first if `backwards`."""
    return _walk(offsets.numpy().tobytes(), batch, backwards)


@lru_cache(maxsize=64)
def _walk(data: bytes, batch: int, backwards: bool) -> Walk:
    offsets = np.frombuffer(data, np.int64)
    sizes, count = np.diff(offsets), len(offsets) - 1
    nothing = np.zeros(min(1, count), np.int64)
    # There is no step before the first; the row given for it is never looked at.
    if backwards:
        limits, before = np.concatenate([sizes[1:], nothing]), np.concatenate([offsets[1:-1], nothing])
    else:
        limits, before = np.concatenate([nothing, sizes[1:]]), np.concatenate([nothing, offsets[:-2]])
    order = np.arange(count)[::-1] if backwards else np.arange(count)
    return Walk(
        offsets,
        batch,
        backwards,
        limits=limits,
        before=before,
        after=offsets[:-1].copy(),
        pair_before=(order + 1) % 2 * batch,
        pair_after=order % 2 * batch,
    )
