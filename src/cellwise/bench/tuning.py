"""The fastest layouts of a cell's kernels on a GPU, found by measuring: `cellwise bench --device cuda --tune`.

A layout that cannot be compiled or launched, or whose blocks wait in vain, is left out, and the result says why. What
was found for a kernel is kept when all its layouts are measured; Ctrl-C leaves what was kept before.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise import torch_internals
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
from cellwise.bench.settings import BenchError, Shape
from cellwise.cells.base import Cell
from cellwise.errors import CellwiseError
from cellwise.nn.recurrent import Recurrent

STEPS = 128  # at most: a layout is as good for any number
_ROUNDS = 7
_BUSY_CYCLES = 6_000_000  # 3 ms of most devices; a backward pass is asked for in 1 to 2 (docs/decisions/0053)
# A layout is to be faster by so much than that of the rules: times of the same kernel differ by about as much.
_MARGIN = 1.02


@dataclass(frozen=True)
class Tuned:
    """A kernel: what it is for, and the layouts of the rules and of the measurement with their milliseconds.

    tried: layouts that were measured. failed: those that were not, and why.
    """

    call: str
    rules: Layout
    rules_ms: float
    best: Layout
    best_ms: float
    tried: int
    failed: tuple[tuple[Layout, str], ...] = ()

    @property
    def is_better(self) -> bool:
        return self.best_ms * _MARGIN < self.rules_ms

    def __str__(self) -> str:
        gain = (
            f"{self.rules_ms:.3f} ms, now {self.best_ms:.3f} as {written(self.best)}"
            if self.is_better
            else f"{self.rules_ms:.3f} ms stays"
        )
        left_out = "".join(f"\n  left out {written(layout)}: {why}" for layout, why in self.failed)
        return f"{self.call}: {gain} ({self.tried} layouts){left_out}"


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
    found, form = Measured(run, work, batch), run.form(number_of(run.dtype))
    rules, *others = alternatives(run.program, form, batch, run.machine.device)
    found.measure([rules, *others])
    for place in range(2):
        if found.times:
            found.measure(variants(run.program, form, found.best)[place])
    again = Measured(run, work, batch)  # once more, side by side
    again.measure([rules, found.best] if found.times else [])
    failed = found.failed | again.failed
    if not again.times:
        raise BenchError(f"{found.call}: no layout runs here; {written(rules)}: {failed[rules]}")
    best = again.best
    times = again.times.get(rules, math.inf), again.times[best]
    result = Tuned(found.call, rules, times[0], best, times[1], len(found.times), tuple(failed.items()))
    if result.is_better:
        remember(run.program, form, batch, run.machine, best)
    yield result


class Measured:
    """Milliseconds of a kernel in each layout that runs; of the others why not."""

    def __init__(self, run: CudaRun, work: Callable[[], None], batch: int) -> None:
        self._run, self._work = run, work
        self.call = call_of(run.program, run.form(number_of(run.dtype)), batch)
        self.times: dict[Layout, float] = {}
        self.failed: dict[Layout, str] = {}

    @property
    def best(self) -> Layout:
        return min(self.times, key=self.times.__getitem__)

    def measure(self, layouts: Sequence[Layout]) -> None:
        """Take the median of rounds in which each layout that is new has its turn."""
        new = [each for each in dict.fromkeys(layouts) if each not in {**self.times, **self.failed}]
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            list(pool.map(self._build, new))
        finally:  # Ctrl-C waits for no kernel that is not begun
            pool.shutdown(cancel_futures=True)
        taken: dict[Layout, list[float]] = {each: [] for each in new if each not in self.failed}
        for _ in range(1 + _ROUNDS):
            for layout in [each for each in taken if each not in self.failed]:
                self._take(layout, taken[layout])
        self.times |= {
            layout: statistics.median(each[1:]) for layout, each in taken.items() if layout not in self.failed
        }

    def _build(self, layout: Layout) -> None:
        try:
            self._run.build(layout)
        except CellwiseError as error:
            self._leave_out(layout, error)

    def _take(self, layout: Layout, taken: list[float]) -> None:
        machine = self._run.machine
        try:
            with trying(layout, layout):
                taken.append(_milliseconds(self._work))
            machine.check()  # whether its blocks waited in vain: of this layout, not of the next one
        except (CellwiseError, torch.OutOfMemoryError) as error:
            self._leave_out(layout, error)
        # Such a call goes on step by step, whose time is not this layout's.
        if (refusal := machine.refused.get((self.call, layout))) is not None:
            self.failed[layout] = refusal

    def _leave_out(self, layout: Layout, error: Exception) -> None:
        self.failed[layout] = (str(error).splitlines() or [type(error).__name__])[0]


def _milliseconds(work: Callable[[], None]) -> float:
    """Of the device: it is kept busy until the host has asked for all, which takes longer than a short kernel."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch_internals.keep_cuda_busy(_BUSY_CYCLES)
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
