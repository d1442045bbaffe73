"""A bidirectional layer on two threads: both directions at once, or one after the other on shared rows; and on one.

    python benchmarks/two_directions.py --pin
    python benchmarks/two_directions.py --pin --cells gru --shapes 100,1,128,128 --seconds 1
    python benchmarks/two_directions.py --busy 1                  # beside a process that never rests

The sides take turns in one process, call by call, on the same numbers. Two times are printed of each, in ms:

clock: the fastest call, and in brackets the median. Only calls count in which no thread waited long for another, as it
    does where a core was taken away for a moment. `calls` says how many of the calls of "at once" counted. With --busy
    all calls count, and the median is what matters.
path: the processor time of a call in which work that threads share is done by one of them, piece by piece, less all
    pieces but the longest of those that run together: what threads would take on cores that are free, without what it
    costs to hand work over and to share a cache. The fastest call. It is the same on a busy machine.

The ratios are those of the other sides to "at once": above 1 it is the quicker. --pin keeps this thread and the one
beside it on a core each, as an idle machine does: where other processes keep both cores busy, Linux leaves a thread
that is woken on the core that woke it, and two threads share one.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import NamedTuple
from unittest import mock

import torch

import cellwise
from cellwise.backends.cpu import gradient_products, launch, threads
from cellwise.backends.cpu.compiler import LlvmCompiler
from cellwise.backends.cpu.team import Share, team

SHAPES = tuple(f"100,{batch},{size},{size}" for size in (64, 128, 256, 512) for batch in (1, 2, 4, 8, 16))
SIDES = ("one thread", "in turn", "at once")
# One thread waited for another for more than this part of its own work, and so many seconds: a core was taken away.
_TAKEN = 0.1, 5e-5

_THREADS = "/proc/self/task"

Work = Callable[[], object]


class Times(NamedTuple):
    """Seconds of the calls of a side: by the clock, those that were disturbed apart, and of the path."""

    clock: list[float]
    disturbed: list[float]
    path: list[float]


class Shared:
    """In place of `threads.together`: looks at the pieces that run together."""

    def __init__(self, alone: bool) -> None:
        self._alone, self.spared, self.was_disturbed = alone, 0.0, False

    def together(self, shares: Sequence[Share]) -> None:
        found = team()
        if self._alone or found is None:
            used = []
            for share in shares:
                start = time.thread_time()
                share()
                used.append(time.thread_time() - start)
            self.spared += sum(used) - max(used)
        elif len(shares) == 1:
            shares[0]()
        else:
            times, (part, least) = found.run(shares), _TAKEN
            self.was_disturbed |= times.idle > max(least, part * times.worked)


def works(layer: torch.nn.Module, x: torch.Tensor, mode: str) -> Work:
    """A call, or a training step."""
    gradient = torch.ones_like(layer(x)[0])

    def infer() -> object:
        with torch.inference_mode():
            return layer(x)

    def train() -> object:
        layer.zero_grad()
        output, _ = layer(x)
        output.backward(gradient)
        return output

    return train if mode == "train" else infer


@contextlib.contextmanager
def side(name: str, patient: bool) -> Iterator[None]:
    """Within, calls run in this way.

    Args:
        patient: as ever; else work is shared also right after the other thread was waited for.
    """
    torch.set_num_threads(1 if name == "one thread" else 2)
    with contextlib.ExitStack() as stack:
        if name == "in turn":
            stack.enter_context(mock.patch.object(LlvmCompiler, "runs_at_once", lambda *_: False))
        if not patient:
            stack.enter_context(mock.patch.object(threads._PATIENCE, "is_over", lambda: False))
        yield


def timed(work: Work, times: Times, is_busy: bool) -> None:
    """A call by the clock, and unless the machine is kept busy one for its path."""
    for alone in (False,) if is_busy else (False, True):
        shared = Shared(alone)
        with contextlib.ExitStack() as stack:
            if not is_busy:
                for module in (launch, gradient_products):
                    stack.enter_context(mock.patch.object(module, "together", shared.together))
            clock, processor = time.perf_counter(), time.thread_time()
            work()
            clock, processor = time.perf_counter() - clock, time.thread_time() - processor
        if alone:
            times.path.append(processor - shared.spared)
        else:
            (times.disturbed if shared.was_disturbed else times.clock).append(clock)


def measured(cell: str, shape: tuple[int, ...], mode: str, seconds: float, is_busy: bool) -> dict[str, Times]:
    T, B, D, H = shape
    layer, x = cellwise.Recurrent(cell, D, H, bidirectional=True, backend="cpu"), torch.randn(T, B, D)
    work = works(layer, x, mode)
    found = {name: Times([], [], []) for name in SIDES}
    for name in SIDES:
        with side(name, is_busy):
            work()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name in SIDES:
            with side(name, is_busy):
                timed(work, found[name], is_busy)
    return found


def pin() -> None:
    """This thread on one core, those of torch beside it on another."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    before = set(os.listdir(_THREADS))
    torch.ones(10**6).add_(1)  # for which they begin
    for thread in set(os.listdir(_THREADS)) - before:
        os.sched_setaffinity(int(thread), {second})
    os.sched_setaffinity(0, {first})


def spin() -> None:
    while True:
        pass


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=spin, daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    time.sleep(1 if others else 0)
    try:
        yield
    finally:
        for other in others:
            other.kill()


def line(name: str, found: dict[str, Times]) -> str:
    told, best = [], {}
    for each, (clock, _, path) in found.items():
        best[each] = (min(clock, default=float("nan")), min(path, default=float("nan")))
        middle = median(clock) if clock else float("nan")
        told.append(f"{each} {1e3 * best[each][0]:.2f} ({1e3 * middle:.2f}) path {1e3 * best[each][1]:.2f}")
    ours = best["at once"]
    ratios = ["/".join(f"{best[each][place] / ours[place]:.2f}" for each in SIDES[:-1]) for place in range(2)]
    count = f"{len(found['at once'].clock)} of {len(found['at once'].clock + found['at once'].disturbed)}"
    return f"{name:<28} {'  '.join(told)}   clock {ratios[0]} path {ratios[1]}   calls {count}"


def arguments(description: str | None, shapes: Sequence[str]) -> argparse.ArgumentParser:
    """What both benchmarks of two threads are asked."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=["lstm", "gru"])
    parser.add_argument("--shapes", nargs="+", default=shapes, metavar="T,B,D,H")
    parser.add_argument("--seconds", type=float, default=0.5, help="For each line.")
    parser.add_argument("--pin", action="store_true", help="Keep each thread on a core of its own.")
    parser.add_argument("--busy", type=int, default=0, help="Beside so many processes that never rest.")
    return parser


def main() -> None:
    parser = arguments(__doc__, SHAPES)
    parser.add_argument("--modes", nargs="+", default=["infer", "train"], choices=["infer", "train"])
    given = parser.parse_args()
    torch.set_num_threads(2)
    with busy(given.busy):
        if given.pin:
            pin()
        for text in given.shapes:
            for cell in given.cells:
                for mode in given.modes:
                    shape = tuple(map(int, text.split(",")))
                    found = measured(cell, shape, mode, given.seconds, bool(given.busy))
                    print(line(f"{cell} {text} {mode}", found), flush=True)


if __name__ == "__main__":
    main()
