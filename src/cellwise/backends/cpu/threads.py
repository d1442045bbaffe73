"""How rows are shared among threads, and the threads. Each runs all steps for its rows, without waiting in between."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

# Handing work to another thread takes 50 to 100 us, in which one core does a few million multiply-adds.
_WORTH_A_THREAD = 2_000_000


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


def row_shares(steps: Steps, threads: int) -> tuple[tuple[int, int], ...]:
    """(first row, rows) for each thread, with about the same number of steps each."""
    if threads <= 1 or steps.batch <= 1:
        return ((0, steps.batch),)
    sizes = np.diff(steps.offsets.numpy())
    lengths = (sizes[:, None] > np.arange(steps.batch)).sum(0) if len(sizes) else np.zeros(steps.batch, int)
    done = np.cumsum(lengths)
    edges = [
        int(np.searchsorted(done, done[-1] * (i + 1) / threads, side="left")) + 1 for i in range(threads - 1)
    ]
    edges = sorted({0, *(min(e, steps.batch) for e in edges), steps.batch})
    return tuple((a, b - a) for a, b in itertools.pairwise(edges))


def threads_for(multiply_adds: int) -> int:
    """One for small work, which would only wait for another thread; at most as many as torch may use."""
    return min(torch.get_num_threads(), max(1, multiply_adds // _WORTH_A_THREAD))


def together(calls: Sequence[Callable[[], None]]) -> None:
    """Run all of them, the first on this thread, and return when all are done."""
    first, *others = calls
    futures = [_pool(len(others)).submit(call) for call in others]
    first()
    for future in futures:
        future.result()


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="cellwise")
