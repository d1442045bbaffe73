"""How a run goes through time: where each step finds the states of its rows, and leaves them.

Rows whose step has a step before it come first in the batch, in either direction, so one number a step says which rows
begin there.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

_ARRAYS = ("offsets", "limits", "before", "after", "pair_before", "pair_after")


@dataclass(frozen=True, eq=False)
class TimeSchedule:
    """A way through time, as arrays of int64 over it. Many batches need no more than the first.

    `limits`: how many rows have a step before this one. A history keeps the states of all steps, in the rows of the
    outputs: `before` and `after` are the first rows where a step finds and leaves them. A pair of buffers of B rows
    each keeps the last two: `pair_before` and `pair_after`.
    """

    offsets: np.ndarray
    batch: int
    backwards: bool

    # There is no step before the first; the row given for it is never looked at.
    @cached_property
    def limits(self) -> np.ndarray:
        sizes, nothing = np.diff(self.offsets), np.zeros(min(1, self.steps), np.int64)
        return np.concatenate([sizes[1:], nothing] if self.backwards else [nothing, sizes[1:]])

    @cached_property
    def before(self) -> np.ndarray:
        offsets, nothing = self.offsets, np.zeros(min(1, self.steps), np.int64)
        return np.concatenate([offsets[1:-1], nothing] if self.backwards else [nothing, offsets[:-2]])

    @cached_property
    def after(self) -> np.ndarray:
        return self.offsets[:-1].copy()

    @cached_property
    def pair_before(self) -> np.ndarray:
        return (self._order + 1) % 2 * self.batch

    @cached_property
    def pair_after(self) -> np.ndarray:
        return self._order % 2 * self.batch

    @property
    def _order(self) -> np.ndarray:
        """In which place each step runs."""
        order = np.arange(self.steps)
        return order[::-1] if self.backwards else order

    @cached_property
    def start(self) -> int:
        """Where the offsets are in memory."""
        address: int = self.offsets.__array_interface__["data"][0]  # in a third of the time of `ctypes.data`
        return address

    @cached_property
    def rows(self) -> int:
        """The valid steps of all rows."""
        return int(self.offsets[-1])

    @property
    def steps(self) -> int:
        """T."""
        return len(self.offsets) - 1

    @property
    def reversed(self) -> TimeSchedule:
        """The same steps the other way round."""
        # Not kept: two schedules that hold each other would wait for Python's collector.
        return schedule_at(self.offsets.tobytes(), self.batch, not self.backwards)

    @cached_property
    def offsets_tensor(self) -> Tensor:
        """(T + 1,) the first row of each time among all valid steps, and their number; on the CPU."""
        # Kept, and autograd saves no tensor that was made within inference mode.
        with torch.inference_mode(False):
            return torch.tensor(self.offsets, device="cpu")

    @cached_property
    def addresses(self) -> dict[str, int]:
        """Where the arrays are, by name."""
        return {name: getattr(self, name).ctypes.data for name in _ARRAYS}

    @cached_property
    def is_dense(self) -> bool:
        return self.rows == self.batch * (len(self.offsets) - 1)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(B,) the steps of each row."""
        sizes = self.offsets[1:] - self.offsets[:-1]
        # A row has the steps that more rows have than come before it; sizes never rise.
        return len(sizes) - np.searchsorted(sizes[::-1], np.arange(self.batch), side="right")

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

    def last_row(self, pair: bool) -> int:
        """Where the states after the last step begin, if all rows have it."""
        return int((self.pair_after if pair else self.after)[0 if self.backwards else -1])

    def ends(self, pair: bool) -> list[tuple[int, int, int | None]]:
        """Where the states after each row's last step are: runs of rows of the batch, the first and how many, and where
        in a history, or a pair, that of the first is; None of rows without a step.
        """
        after, count = self.pair_after if pair else self.after, int((self.lengths > 0).sum())
        found: list[tuple[int, int, int | None]] = []
        if self.backwards:
            found = [(0, count, int(after[0]))] if count else []
        else:
            for steps, rows in itertools.groupby(range(count), self.lengths.__getitem__):
                first, *rest = rows
                found.append((first, 1 + len(rest), int(after[steps - 1]) + first))
        return found + [(count, self.batch - count, None)] * (count < self.batch)

    def finals(self, history: Tensor, initial: Tensor, pair: bool = False) -> Tensor:
        """A copy of the states (B, size) after each row's last step; the initial ones where a row has none."""
        if self.rows == 0:
            return initial.clone()
        if self.is_dense:
            found, size = history.narrow_copy(0, self.last_row(pair), self.batch), initial.shape[1]
            return (
                found
                if found.shape[1] == size
                else found[:, :size].clone(memory_format=torch.contiguous_format)
            )
        rows = self._pair_ends if pair else self._ends
        found = history[:, : initial.shape[1]].index_select(0, rows.to(history.device))
        if self.lengths[-1] > 0:
            return found
        has_steps = torch.from_numpy(self.lengths > 0)[:, None].to(history.device)
        return torch.where(has_steps, found, initial)

    @cached_property
    def _ends(self) -> Tensor:
        """Where the states after each row's last step are in a history; 0 where it has none."""
        return self._ends_in(self.after)

    @cached_property
    def _pair_ends(self) -> Tensor:
        """The same in a pair."""
        return self._ends_in(self.pair_after)

    def _ends_in(self, after: np.ndarray) -> Tensor:
        last = np.zeros(self.batch, np.int64) if self.backwards else np.maximum(self.lengths - 1, 0)
        return torch.from_numpy(np.where(self.lengths > 0, after[last] + np.arange(self.batch), 0))

    @cached_property
    def predecessors(self) -> tuple[Tensor, Tensor, Tensor]:
        """For the valid steps: the history's row before each, those without one, and their rows in the batch."""
        sizes = np.diff(self.offsets)
        time = np.repeat(np.arange(len(sizes)), sizes)
        row = np.arange(self.rows) - self.offsets[:-1][time]
        begins = row >= self.limits[time]
        where = np.where(begins, 0, self.before[time] + row)
        return tuple(map(torch.from_numpy, (where, np.flatnonzero(begins), row[begins])))  # type: ignore[return-value]


def schedule_of(offsets: Tensor, batch: int, backwards: bool) -> TimeSchedule:
    """The way through these steps, from the last to the first if `backwards`."""
    return schedule_at(offsets.numpy().tobytes(), batch, backwards)


@lru_cache(maxsize=64)
def even_schedule(steps: int, batch: int, backwards: bool) -> TimeSchedule:
    """The way through a dense batch."""
    return schedule_at((np.arange(steps + 1, dtype=np.int64) * batch).tobytes(), batch, backwards)


@lru_cache(maxsize=64)
def schedule_at(data: bytes, batch: int, backwards: bool) -> TimeSchedule:
    """The same by the bytes of the offsets, int64."""
    return TimeSchedule(np.frombuffer(data, np.int64), batch, backwards)
