"""Timing both sides in turn: A B B A, so that what drifts in the machine falls on both alike."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from cellwise.bench import devices
from cellwise.bench.comparisons import Candidate

# A sample lasts at least this long; what is shorter is called several times in it.
_SAMPLE = 0.002
# After a parallel run the threads of OpenMP and onnxruntime wait in a busy loop for some milliseconds, and would take
# a core from whoever comes next.
_SETTLE = 0.008
_FEWEST = 3


@dataclass(frozen=True)
class Times:
    """Seconds of one call, one number a sample, of one side; a sample is `calls` calls in a row."""

    name: str
    calls: int
    seconds: tuple[float, ...]


def clocked(work: Callable[[], object], calls: int = 1) -> float:
    """Seconds of one call, until a GPU has done with all of them too."""
    devices.wait()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    devices.wait()
    return (time.perf_counter() - start) / calls


def interleaved(
    candidates: Sequence[Candidate],
    grad: bool,
    repeats: int,
    seconds: float,
    calls: Sequence[int] | None = None,
) -> tuple[Times, ...]:
    """Time all candidates in turn, the first beside each of the others, `repeats` times or until `seconds` are over.

    Args:
        candidates: two or more, already warm.
        grad: whether torch records what is computed.
        calls: in a sample of each; measured if None.
    """
    with torch.set_grad_enabled(grad), _no_collection():
        if calls is None:
            calls = [_calls(candidate) for candidate in candidates]
        taken: list[list[float]] = [[] for _ in candidates]
        begin = time.perf_counter()
        for round_number in range(repeats):
            for place in _order(len(candidates), round_number):
                time.sleep(_SETTLE)
                taken[place].append(clocked(candidates[place].work, calls[place]))
            if round_number + 1 >= _FEWEST and time.perf_counter() - begin > seconds:
                break
    return tuple(
        Times(candidate.name, count, tuple(values))
        for candidate, count, values in zip(candidates, calls, taken, strict=True)
    )


def _order(count: int, round_number: int) -> list[int]:
    """Ours (0) stands beside every other; every second round goes backwards.

    >>> [_order(2, number) for number in range(3)], [_order(3, number) for number in range(2)]
    ([[0, 1], [1, 0], [0, 1]], [[2, 0, 1], [1, 0, 2]])
    """
    order = [*range(count)[2:], 0, 1]
    return order if round_number % 2 == 0 else order[::-1]


def _calls(candidate: Candidate) -> int:
    candidate.work()
    once = clocked(candidate.work)
    return min(10_000, max(1, math.ceil(_SAMPLE / max(once, 1e-7))))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's collector of cycles would run in one side's time for the other's objects."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
