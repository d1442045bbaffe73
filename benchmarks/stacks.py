"""Layers of a stack on two threads: all of them at once, or one after the other; and one after the other on one thread.

    python benchmarks/stacks.py
    python benchmarks/stacks.py --cells gru --shapes 100,2,64,128,2 --seconds 2
    python benchmarks/stacks.py --everywhere                      # also where layers go one after the other
    python benchmarks/stacks.py --busy 1                          # beside a process that never rests

A shape is T, B, D, H and the number of layers. The sides take turns in one process, sample by sample, on the same
numbers; torch's own layer on two threads is one of them. Of each are printed, in ms, the fastest and in brackets the
median, and then the times of the other sides over those of "at once", of the fastest and of the medians: above 1 that
is the quicker. `bound` is the same of half of the time of one thread, which nothing on two threads can be below.

--busy: beside so many processes that never rest. Then the medians are what matters.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from statistics import median
from unittest import mock

import torch
from two_directions import arguments, busy, pin, works

import cellwise
from cellwise.backends.cpu import small_stack
from cellwise.backends.cpu.compiler import LlvmCompiler
from cellwise.nn import plain

SHAPES = tuple(
    f"{T},{B},{size},{size},{layers}"
    for T, size, layers in (
        (35, 64, 2),
        (100, 64, 2),
        (35, 128, 2),
        (100, 128, 2),
        (100, 128, 4),
        (35, 256, 2),
    )
    for B in (1, 2, 4, 8)
)
SIDES = ("one thread", "by layers", "at once", "torch")
_SAMPLE = 0.004  # seconds: what is shorter is called several times in a sample
_TORCHS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


class Side:
    """A layer and what was decided for its calls."""

    def __init__(self, name: str, cell: str, sizes: tuple[int, int, int], x: torch.Tensor, mode: str) -> None:
        self._name, self._routes = name, {}
        D, H, layers = sizes
        layer: torch.nn.Module = cellwise.Recurrent(cell, D, H, layers, backend="cpu")
        if name == "torch":
            layer = _TORCHS[cell](D, H, layers)
        self.seconds: list[float] = []
        with self._ways():
            self._work = works(layer, x, mode)
            self._work()

    @contextlib.contextmanager
    def _ways(self) -> Iterator[None]:
        torch.set_num_threads(1 if self._name == "one thread" else 2)
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(plain, "_ROUTES", self._routes))
            if self._name != "at once":
                stack.enter_context(mock.patch.object(LlvmCompiler, "small_stack", lambda *_: None))
            yield

    def sample(self) -> None:
        with self._ways():
            self._work()
            count = max(1, round(_SAMPLE / self.seconds[0])) if self.seconds else 1
            start = time.perf_counter()
            for _ in range(count):
                self._work()
            self.seconds.append((time.perf_counter() - start) / count)


def measured(cell: str, shape: tuple[int, ...], mode: str, seconds: float) -> dict[str, list[float]]:
    T, B, *sizes = shape
    x = torch.randn(T, B, sizes[0])
    names = SIDES if cell in _TORCHS else SIDES[:-1]
    sides = {name: Side(name, cell, tuple(sizes), x, mode) for name in names}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for side in sides.values():
            side.sample()
    return {name: side.seconds for name, side in sides.items()}


def line(name: str, found: dict[str, list[float]]) -> str:
    told = [f"{each} {1e3 * min(times):.3f} ({1e3 * median(times):.3f})" for each, times in found.items()]
    ratios = []
    for of in (min, median):
        ours: Callable[[str], float] = lambda side, of=of: of(found[side]) / of(found["at once"])  # noqa: E731
        ratios.append("/".join(f"{ours(each):.2f}" for each in found if each != "at once"))
    bound = 2 * min(found["by layers"]) / min(found["one thread"])
    count = len(found["at once"])
    return f"{name:<28} {'  '.join(told)}   {ratios[0]} ({ratios[1]})   bound {bound:.2f}   {count} samples"


def main() -> None:
    parser = arguments(__doc__, SHAPES)
    parser.add_argument("--modes", nargs="+", default=["infer", "train"], choices=["infer", "train"])
    parser.add_argument("--everywhere", action="store_true", help="Also shapes whose layers go one by one.")
    given = parser.parse_args()
    torch.set_num_threads(2)
    if given.everywhere:
        for limit in ("_FILLED", "_MOST_BYTES", "_MOST_WORK"):
            setattr(small_stack, limit, 2**40)
    with busy(given.busy):
        if given.pin:
            pin()
        for text in given.shapes:
            for cell in given.cells:
                for mode in given.modes:
                    shape = tuple(map(int, text.split(",")))
                    print(
                        line(f"{cell} {text} {mode}", measured(cell, shape, mode, given.seconds)), flush=True
                    )


if __name__ == "__main__":
    main()
