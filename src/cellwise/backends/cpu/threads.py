"""How rows are shared among threads, and the threads. Each runs all steps for its rows, without waiting in between."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
    """Run all of them, the first on this thread, and return when all are done.

    What no other thread has begun when this one is free, this one does: where cores are taken, a thread that was woken
    may wait for one for many milliseconds. Whatever is raised, Ctrl-C too, nothing runs any more when it arrives.
    """
    if len(calls) == 1:
        calls[0]()
        return
    others = [_Once(call) for call in calls[1:]]
    try:
        futures = [_pool(len(others)).submit(call) for call in others]
        for call in calls[:1]:
            call()
        for call in others:
            call()
        for future in futures:
            if not future.cancel():
                future.result()
    finally:
        for call in others:
            call.end()


class _Once:
    """A call that is made by whoever is the first to ask for it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._begun, self._running = threading.Lock(), threading.Lock()
        self._running.acquire()

    def __call__(self) -> None:
        if self._begun.acquire(blocking=False):
            try:
                self._call()
            finally:
                self._running.release()

    def end(self) -> None:
        """Return when it is over; if nobody has begun it, nobody will."""
        while not self._begun.acquire(blocking=False):
            with suppress(KeyboardInterrupt):  # it arrives when nothing runs any more
                self._running.acquire()
                self._running.release()
                return


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="cellwise")


if hasattr(os, "register_at_fork"):
    # A forked process has the pools, but not their threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)
