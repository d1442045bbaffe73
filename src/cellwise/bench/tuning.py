"""The fastest layouts of a cell's kernels on a GPU, found by measuring: `cellwise bench --device cuda --tune`."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise.backends.compiled.backward_pass import BackwardPass
from cellwise.backends.compiled.cell_kernels import kernels_for
from cellwise.backends.compiled.compiler import load
from cellwise.backends.compiled.forward_pass import ForwardPass
from cellwise.backends.compiled.time_schedule import even_schedule
from cellwise.backends.cuda.launch import CudaRun
from cellwise.backends.cuda.layout import Layout, trying
from cellwise.backends.cuda.numbers import number_of
from cellwise.backends.cuda.tuned import alternatives, call_of, remember, variants, written
from cellwise.bench import devices
from cellwise.bench.settings import Shape
from cellwise.cells.base import Cell
from cellwise.nn.recurrent import Recurrent

STEPS = 128  # at most: a layout is as good for any number
_ROUNDS = 7
# A layout is to be faster by so much than that of the rules: times of the same kernel differ by about as much.
_MARGIN = 1.02


@dataclass(frozen=True)
class Tuned:
    """A kernel: what it is for, and the layouts of the rules and of the measurement with their milliseconds."""

    call: str
    rules: Layout
    rules_ms: float
    best: Layout
    best_ms: float
    tried: int

    @property
    def is_better(self) -> bool:
        return self.best_ms * _MARGIN < self.rules_ms

    def __str__(self) -> str:
        gain = (
            f"{self.rules_ms:.3f} ms, now {self.best_ms:.3f} as {written(self.best)}"
            if self.is_better
            else f"{self.rules_ms:.3f} ms stays"
        )
        return f"{self.call}: {gain} ({self.tried} layouts)"


def tune(cell: Cell, shape: Shape, dtype: str) -> Iterator[Tuned]:
    """Measure the layouts of a layer's kernels, forward and backward, and keep those that are faster."""
    with devices.numbers(dtype):
        number = devices.dtype_of(dtype)
        layer = Recurrent(cell, shape.D, shape.H, backend="cuda", device="cuda", dtype=number)
        x = torch.randn(
            min(STEPS, shape.T), shape.B, shape.D, device="cuda", dtype=number, requires_grad=True
        )
        yield from tune_layer(layer, x)


def tune_layer(layer: Recurrent, x: Tensor) -> Iterator[Tuned]:
    """The same for a layer of one direction and its input (T, B, D), which requires a gradient."""
    forward, backward = _runs(layer, x)

    def infer() -> None:
        with torch.no_grad():
            layer(x)

    yield from _tuned(forward, infer, x.shape[1])
    output, sources = layer(x)[0], [x, *layer.parameters()]
    at_output = torch.randn_like(output)

    def differentiate() -> None:
        torch.autograd.grad(output, sources, at_output, retain_graph=True)

    yield from _tuned(backward, differentiate, x.shape[1])


def _runs(layer: Recurrent, x: Tensor) -> tuple[CudaRun, CudaRun]:
    kernels = kernels_for(layer.cell.graph, x.dtype, load(layer.backend), False, False)
    lengths, schedule = (x.shape[2], layer.hidden_size, 0), even_schedule(x.shape[0], x.shape[1], False)
    ahead = ForwardPass(kernels, layer.bias, lengths, schedule, False, False, x.device)
    back = BackwardPass(kernels, layer.bias, lengths, schedule, False, x.device)
    forward, backward = kernels.inference.open(ahead.shape), kernels.backward.open(back.shape)
    assert isinstance(forward, CudaRun) and isinstance(backward, CudaRun)
    forward.leaves_lasts = True  # as in a call: it is that text which is to be compiled in several threads
    return forward, backward


def _tuned(run: CudaRun, work: Callable[[], None], batch: int) -> Iterator[Tuned]:
    """One kernel: the alternatives, then the best of them with other reads under way, then with other holds."""
    form, times = run.form(number_of(run.dtype)), dict[Layout, float]()
    rules, *others = alternatives(run.program, form, batch, run.machine.device)
    _measure(run, work, [rules, *others], times)
    for place in range(2):
        best = min(times, key=times.__getitem__)
        _measure(run, work, variants(run.program, form, best)[place], times)
    best = min(times, key=times.__getitem__)
    _measure(run, work, [rules, best], again := dict[Layout, float]())  # once more, side by side
    found = Tuned(call_of(run.program, form, batch), rules, again[rules], best, again[best], len(times))
    if found.is_better:
        remember(run.program, form, batch, run.machine, best)
    yield found


def _measure(
    run: CudaRun, work: Callable[[], None], layouts: Sequence[Layout], times: dict[Layout, float]
) -> None:
    """Milliseconds with each layout that has none yet: the median of rounds in which each has its turn."""
    new = [each for each in dict.fromkeys(layouts) if each not in times]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run.build, new))
    taken: dict[Layout, list[float]] = {each: [] for each in new}
    for _ in range(1 + _ROUNDS):
        for layout in new:
            with trying(layout, layout):
                taken[layout].append(_milliseconds(work))
    times |= {layout: statistics.median(each[1:]) for layout, each in taken.items()}


def _milliseconds(work: Callable[[], None]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
