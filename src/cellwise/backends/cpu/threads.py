"""How rows are shared among threads, and the threads. Each runs all steps for its rows, without waiting in between."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from cellwise.backends.compiled.time_schedule import TimeSchedule

# Handing work to another thread takes 50 to 100 us, in which one core does a few million multiply-adds.
_WORTH_A_THREAD = 2_000_000


def row_shares(schedule: TimeSchedule, threads: int) -> tuple[tuple[int, int], ...]:
    """(first row, rows) for each thread, with about the same number of steps each."""
    if threads <= 1 or schedule.batch <= 1:
        return ((0, schedule.batch),)
    if schedule.is_dense:
        edges = [schedule.batch * i // threads for i in range(threads + 1)]
    else:
        done = np.cumsum(schedule.lengths)
        wanted = [done[-1] * (i + 1) / threads for i in range(threads - 1)]
        edges = [0, *(int(np.searchsorted(done, each)) + 1 for each in wanted), schedule.batch]
    edges = sorted({min(edge, schedule.batch) for edge in edges})
    return tuple((a, b - a) for a, b in itertools.pairwise(edges))


def threads_for(multiply_adds: int) -> int:
    """One for small work, which would only wait for another thread; at most as many as torch may use."""
    return min(torch.get_num_threads(), max(1, multiply_adds // _WORTH_A_THREAD))


def together(calls: Sequence[Callable[[], None]]) -> None:
    """Run all of them, the first on this thread, and return when all are done."""
    futures = [_pool(len(calls) - 1).submit(call) for call in calls[1:]]
    for call in calls[:1]:
        call()
    for future in futures:
        future.result()


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="cellwise")


if hasattr(os, "register_at_fork"):
    # A forked process has the pools, but not their threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)
