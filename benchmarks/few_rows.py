"""Few rows in one direction on two threads: shared by units, or by rows where there are two or more; and on one.

    python benchmarks/few_rows.py --pin
    python benchmarks/few_rows.py --pin --cells gru --shapes 50,1,512,512 --seconds 2
    python benchmarks/few_rows.py --busy 1                        # beside a process that never rests

The sides take turns in one process, pass by pass, on the same numbers: the forward pass that keeps a tape, and the
backward pass. Of each are printed, in ms, the fastest and in brackets the median; first of all that a pass does, then
of its kernels alone, with what it costs to hand them over. The ratios are those of the fastest passes and kernels to
units': above 1 units are quicker. On a machine that others use only the fastest mean something; with --busy only the
medians do, and passes run as they do for everybody, alone for a while after the other thread was waited for.

--pin keeps this thread and the one beside it on a core each (see two_directions.py).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any
from unittest import mock

import torch
from two_directions import arguments, busy, pin

import cellwise
from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.cell_kernels import CellKernels
from cellwise.backends.compiled.forward_pass import ForwardPass
from cellwise.backends.compiled.time_schedule import even_schedule
from cellwise.backends.cpu import launch, threads
from cellwise.backends.cpu.compiler import llvm_compiler
from cellwise.backends.cpu.target import host

SHAPES = tuple(
    f"{T},{rows},{size},{size}"
    for T, size in ((100, 128), (100, 256), (50, 512), (35, 650))
    for rows in (1, 2, 3, 4, 5)
)
SIDES = ("one thread", "by rows", "by units")

Pass = Callable[[], float]


class Kernels:
    """Adds up the seconds of kernels."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            start = time.perf_counter()
            found = call(*given)
            self.seconds += time.perf_counter() - start
            return found

        return timed

    def in_step(self, *given: Any) -> float:
        """`threads.in_step`."""
        seconds = _in_step(*given)
        self.seconds += seconds
        return seconds


_in_step = threads.in_step


@contextlib.contextmanager
def side(name: str, kernels: Kernels, is_busy: bool) -> Iterator[None]:
    torch.set_num_threads(1 if name == "one thread" else 2)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(mock.patch.object(launch, "in_units", lambda *_: name == "by units"))
        if name == "by units":
            enter(mock.patch.object(launch, "in_step", kernels.in_step))
        else:
            enter(mock.patch.object(launch, "launch", kernels.timed(launch.launch)))
        if not is_busy:
            enter(mock.patch.object(threads._PATIENCE, "is_over", lambda: False))
        yield


class Passes:
    """The passes of one side, whose runs are its own."""

    def __init__(self, cell: str, shape: tuple[int, ...]) -> None:
        T, B, D, H = shape
        layer = cellwise.Recurrent(cell, D, H)
        compiler = llvm_compiler(host())
        made = CellKernels(layer.cell.graph, torch.float32, compiler)
        schedule, device = even_schedule(T, B, False), torch.device("cpu")
        self._forward = ForwardPass(made, True, (D, H, 0), schedule, False, True, device)
        self._backward = BackwardPass(made, True, (D, H, 0), schedule, False, device)
        self._x, self._weights = torch.randn(T * B, D), [each.detach() for each in layer.parameters()]
        self._states = [torch.zeros(B, H) for _ in layer.cell.states]

    def forward(self) -> None:
        self._found = self._forward.run(self._x, self._states, self._weights, None)

    def backward(self) -> None:
        output, _, saved = self._found
        nothing = [None] * len(self._states)
        self._backward.run(self._x, self._states, self._weights, None, output, saved, output, nothing, False)


def measured(
    cell: str, shape: tuple[int, ...], seconds: float, is_busy: bool
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Seconds of passes and of their kernels, by side and pass."""
    sides = {name: Passes(cell, shape) for name in SIDES}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {
        name: {"forward": [], "backward": []} for name in SIDES
    }
    end = math.inf
    while time.perf_counter() < end:
        for name, passes in sides.items():
            for way in found[name]:
                kernels = Kernels()
                with side(name, kernels, is_busy):
                    start = time.perf_counter()
                    getattr(passes, way)()
                    found[name][way].append((time.perf_counter() - start, kernels.seconds))
        if end == math.inf:  # the first ones compiled
            found = {name: {"forward": [], "backward": []} for name in SIDES}
            end = time.perf_counter() + seconds
    return found


def lines(name: str, found: dict[str, dict[str, list[tuple[float, float]]]]) -> Iterator[str]:
    for way in ("forward", "backward"):
        told, best = [], {}
        for each, ways in found.items():
            columns = list(zip(*ways[way], strict=True))
            best[each] = [min(column) for column in columns]
            shown = "  ".join(f"{1e3 * min(column):.2f} ({1e3 * median(column):.2f})" for column in columns)
            told.append(f"{each} {shown}")
        ratios = [
            "/".join(f"{best[each][place] / best['by units'][place]:.2f}" for each in SIDES[:-1])
            for place in range(2)
        ]
        count = len(found["by units"][way])
        yield (
            f"{name} {way:<8}".ljust(30)
            + "   ".join(told)
            + f"   pass {ratios[0]} kernels {ratios[1]}   {count} calls"
        )


def main() -> None:
    given = arguments(__doc__, SHAPES).parse_args()
    torch.set_num_threads(2)
    with busy(given.busy):
        if given.pin:
            pin()
        for text in given.shapes:
            for cell in given.cells:
                shape = tuple(map(int, text.split(",")))
                for line in lines(f"{cell} {text}", measured(cell, shape, given.seconds, bool(given.busy))):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
