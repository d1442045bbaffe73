"""A bidirectional layer on two threads: both directions at once, or one after the other on shared rows; and on one.

    python benchmarks/two_directions.py --pin
    python benchmarks/two_directions.py --pin --cells gru --shapes 100,1,128,128 --seconds 1
    python benchmarks/two_directions.py --pin --busy              # beside a process that takes the second core

The sides take turns in one process, call by call, on the same layer and input, in wall-clock time. Printed are, in ms,
the fastest call of each and in brackets the median: on a machine that others use the median says how busy it was, the
fastest what the sides need; and the ratios of the fastest to that of "at once": above 1 it is the quicker.

--pin keeps this thread and the one beside it on a core each, as an idle machine would: where other processes keep both
cores busy, Linux leaves a thread that is woken for a moment on the core that woke it, and two threads share one.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from statistics import median
from unittest import mock

import torch

import cellwise
from cellwise.backends.cpu import threads
from cellwise.backends.cpu.compiler import LlvmCompiler

SHAPES = tuple(f"100,{batch},{size},{size}" for size in (64, 128, 256, 512) for batch in (1, 2, 4, 8, 16))
SIDES = ("one thread", "in turn", "at once")

Work = Callable[[], object]


def works(layer: torch.nn.Module, x: torch.Tensor, mode: str) -> Work:
    """A call, or a training step."""

    def infer() -> object:
        with torch.inference_mode():
            return layer(x)

    def train() -> object:
        layer.zero_grad()
        output, _ = layer(x)
        output.backward(torch.ones_like(output))
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


def measured(
    layers: dict[str, torch.nn.Module], x: torch.Tensor, mode: str, seconds: float, patient: bool
) -> dict[str, list[float]]:
    """Seconds of each call, the sides in turns. A layer for each: what is remembered of a call is by its threads."""
    found: dict[str, list[float]] = {name: [] for name in layers}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found[SIDES[-1]]) < 5:
        for name, layer in layers.items():
            with side(name, patient):
                work = works(layer, x, mode)
                if not found[name]:
                    work()
                start = time.perf_counter()
                work()
                found[name].append(time.perf_counter() - start)
    return found


def pin() -> None:
    """This thread on one core, the one beside it on another."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    begun = time.perf_counter()
    done: list[bool] = []

    def move() -> None:
        os.sched_setaffinity(0, {second})
        done.append(True)

    # A call that this thread is done with first would be made here, so it waits for the other.
    def wait() -> None:
        while not done and time.perf_counter() < begun + 10:
            time.sleep(0.01)

    threads.together([wait, move])


def spin(core: int) -> None:
    os.sched_setaffinity(0, {core})
    while True:
        pass


@contextlib.contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """A process that never rests on the second core."""
    if not wanted:
        yield
        return
    other = multiprocessing.get_context("spawn").Process(
        target=spin, args=(max(os.sched_getaffinity(0)),), daemon=True
    )
    other.start()
    time.sleep(1)
    try:
        yield
    finally:
        other.kill()


def line(name: str, found: dict[str, list[float]]) -> str:
    best = {side: min(times) for side, times in found.items()}
    told = "   ".join(
        f"{side} {1e3 * best[side]:7.3f} ({1e3 * median(times):7.3f})" for side, times in found.items()
    )
    ratios = "   ".join(f"{best[side] / best['at once']:.2f}" for side in SIDES[:-1])
    return f"{name:<30} {told}   ratios {ratios}   calls {len(found['at once'])}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=["lstm", "gru"])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,B,D,H")
    parser.add_argument("--modes", nargs="+", default=["infer", "train"], choices=["infer", "train"])
    parser.add_argument("--seconds", type=float, default=0.5, help="For each line.")
    parser.add_argument("--pin", action="store_true", help="Keep each thread on a core of its own.")
    parser.add_argument("--busy", action="store_true", help="Beside a process that takes the second core.")
    given = parser.parse_args()
    torch.set_num_threads(2)
    with busy(given.busy):
        if given.pin:
            pin()
        for shape in given.shapes:
            T, B, D, H = map(int, shape.split(","))
            for cell in given.cells:
                layers = {
                    name: cellwise.Recurrent(cell, D, H, bidirectional=True, backend="cpu") for name in SIDES
                }
                x = torch.randn(T, B, D)
                for mode in given.modes:
                    print(
                        line(f"{cell} {shape} {mode}", measured(layers, x, mode, given.seconds, given.busy)), flush=True
                    )


if __name__ == "__main__":
    main()
