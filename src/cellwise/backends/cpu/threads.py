"""How work is shared among threads. Each runs all steps for its rows, without waiting in between; two that share units
wait for each other at every stage (`by_units.py`).

The threads are torch's (`team.py`). Where it has none that can be asked, some of our own.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

from cellwise.backends.compiled.time_schedule import TimeSchedule
from cellwise.backends.cpu.team import Share, team
from cellwise.backends.cpu.wave import Wave

# Multiply-adds of a thread for which it is worth handing them over.
_WORTH_A_THREAD = 2_500_000
# A call of few rows that has less than so many times as many is done sooner by one thread in one chain
# (`small_calls.py`) than by two: by how many rows a step has at most, without gradients, and with them, which more of
# Python surrounds. The same of two directions, by the work of each: two chains, or one thread for each direction
# (docs/decisions/0080).
_CHAINS = ((1, 3.0, 6.0), (5, 7.0, 11.0), (math.inf, 5.0, 11.0))
_CHAINS_OF_BOTH = ((5, 3.5, 6.0), (math.inf, 3.5, 10.0))
# Seconds in which a thread that was woken has begun if there is a core for it.
_SOON = 3e-4
# Seconds after work in which threads are awake, and of a work for which no thread is to be woken.
_AWAKE, _SHORT = 0.005, 0.001
# Seconds beyond twice the best time of a wave, most of which are short, from which on one thread had been quicker.
_NOTABLE_OF_A_WAVE = 0.0001
_NO_WAITING = 2**62  # arrivals: more than anybody waits for


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


def is_for_many(multiply_adds: int, batch: int, records: bool, both: bool = False) -> bool:
    """Whether two threads do a call of few rows sooner than one does it in one chain.

    Args:
        multiply_adds: those of the forward pass.
        batch: rows of a step; a single one must be of those that threads can share.
        records: whether a backward pass follows.
        both: whether there are two directions, a thread for each, with so many each.
    """
    table = _CHAINS_OF_BOTH if both else _CHAINS
    chain = next(limits for most, *limits in table if batch <= most)[records]
    return torch.get_num_threads() > 1 and multiply_adds >= chain * _WORTH_A_THREAD


def together(shares: Sequence[Share]) -> None:
    """Do all of them, which take about as long, and return when all are done.

    One after the other on this thread for a while after it had to wait for another one (`_Patience`).
    """
    if len(shares) == 1 or _PATIENCE.is_over():
        for share in shares:
            share()
    elif (found := team()) is not None:
        times = found.run(shares)
        _PATIENCE.waited(times.worked, times.idle)
    else:
        on_own_threads(shares)


class _Last:
    used = 0.0  # when work of several layers was last done


def in_wave(wave: Wave) -> None:
    """Do all tasks of a wave, and return when all are done; on this thread alone for a while after this took far longer
    than it can, and where the others are likely to sleep.
    """
    wave.begin()
    if len(wave.shares) == 1:
        wave.shares[0]()
        return
    start = time.perf_counter()
    # Threads that sleep take as long to wake as short work takes; and longer where their core was taken meanwhile.
    are_asleep = start > _Last.used + _AWAKE and wave.at_best < _SHORT
    is_alone = are_asleep or _PATIENCE.is_over()
    together(wave.shares[:1] if is_alone else wave.shares)
    _Last.used = time.perf_counter()
    if not is_alone:
        seconds = _Last.used - start
        _PATIENCE.took(seconds, wave.at_best, _NOTABLE_OF_A_WAVE)
        wave.at_best = min(wave.at_best, seconds)


def on_own_threads(calls: Sequence[Callable[[], None]]) -> None:
    """Make all of them, the first on this thread, and return when all are done.

    What no other thread has begun when this one is free, this one does. Whatever is raised, Ctrl-C too, nothing runs
    any more when it arrives.
    """
    others = [_Once(call) for call in calls[1:]]
    try:
        futures = [_pool(len(others)).submit(call) for call in others]
        start = time.perf_counter()
        calls[0]()
        for call in others:
            call()
        free = time.perf_counter()
        for future in futures:
            if not future.cancel():
                future.result()
        _PATIENCE.waited(free - start, time.perf_counter() - free)
    finally:
        _end(others)


def in_step(shares: Sequence[Share], alone: Share, arrivals: np.ndarray, at_best: float = math.inf) -> float:
    """Do two shares that wait for each other; or `alone`, the work of both.

    It is done alone where no other thread has begun after a moment, since it may be without a core for long, and for a
    while after the two took far longer than they can.

    Args:
        arrivals: where they count that they have come so far.
        at_best: seconds that this took at best so far.

    Returns:
        The seconds that it took.
    """
    start = time.perf_counter()
    if _PATIENCE.is_over():
        alone()
    elif (found := team()) is not None:
        seconds, is_shared = found.pair(shares, alone, _SOON)
        if is_shared:
            _PATIENCE.took(seconds, at_best)
        else:
            _PATIENCE.lost(_SOON)
        return seconds
    else:
        in_step_with_own(shares, alone, arrivals, at_best)
    return time.perf_counter() - start


def in_step_with_own(
    calls: Sequence[Callable[[], None]],
    alone: Callable[[], None],
    arrivals: np.ndarray,
    at_best: float = math.inf,
) -> None:
    """As `in_step`, the first on this thread and the second on one of our own."""
    start = time.perf_counter()
    other, is_done = _Once(calls[1]), False
    try:
        future = _pool(1).submit(other)
        while not other.has_begun and time.perf_counter() < start + _SOON:
            time.sleep(0)  # which lets the other thread have the interpreter
        if other.cancel():
            _PATIENCE.lost(time.perf_counter() - start)
            alone()
        else:
            calls[0]()
            future.result()
            _PATIENCE.took(time.perf_counter() - start, at_best)
        is_done = True
    finally:
        if not is_done:
            arrivals[:] = _NO_WAITING
        _end([other])


class _Once:
    """A call that is made by whoever is the first to ask for it."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._begun, self._running = threading.Lock(), threading.Lock()
        self._running.acquire()

    @property
    def has_begun(self) -> bool:
        return self._begun.locked()

    def cancel(self) -> bool:
        """Whether nobody has begun it; then nobody will."""
        if not self._begun.acquire(blocking=False):
            return False
        self._running.release()
        return True

    def __call__(self) -> None:
        if self._begun.acquire(blocking=False):
            try:
                self._call()
            finally:
                self._running.release()

    def end(self) -> None:
        """Return when it is over, or will never be begun."""
        if not self.cancel():
            _wait(self._running)


def _end(calls: Sequence[_Once]) -> None:
    """End all of them, whatever is raised meanwhile."""
    if calls:
        try:
            calls[0].end()
        finally:
            _end(calls[1:])


def _wait(lock: threading.Lock) -> None:
    """Wait for a lock, however often Ctrl-C is pressed."""
    try:
        with lock:
            return
    except KeyboardInterrupt:
        _wait(lock)
        raise


class _Patience:
    """Whether to share work with other threads, from how long was waited for them.

    Where other processes want the cores, a thread that has begun may be without one for 4 to 30 ms, and whoever shares
    work is as slow as the slowest share. Such a wait is paid for once in ten times as long: until then a thread does
    the work alone.
    """

    _NOTABLE, _TIMES = 0.001, 10

    def __init__(self) -> None:
        self._resumes = 0.0

    def is_over(self) -> bool:
        return time.perf_counter() < self._resumes

    def waited(self, worked: float, idle: float) -> None:
        """A thread worked for so many seconds, then it waited so long for others who had as much to do."""
        if idle - worked > self._NOTABLE:
            self.lost(idle - worked)

    def took(self, seconds: float, at_best: float, notable: float = _NOTABLE) -> None:
        """Threads that wait for each other took so long, which one alone does in less than twice the best time."""
        if seconds > 2 * at_best + notable:
            self.lost(seconds - at_best)

    def lost(self, seconds: float) -> None:
        """So much time was lost."""
        self._resumes = time.perf_counter() + self._TIMES * seconds


_PATIENCE = _Patience()


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="cellwise")


if hasattr(os, "register_at_fork"):
    # A forked process has the pools, but not their threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)
