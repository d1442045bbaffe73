"""The benchmark: cell by cell and shape by shape, first compared, then timed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from cellwise import cells
from cellwise.bench import devices
from cellwise.bench.background_load import all_cores_busy
from cellwise.bench.clock import Times, clocked, interleaved
from cellwise.bench.comparisons import Comparison, comparison_of, tiny
from cellwise.bench.implementations import Implementations, implementations_of
from cellwise.bench.peak import Peak
from cellwise.bench.settings import STEPS, Settings, Shape
from cellwise.bench.speedup import Spread, speedups, spread, verdict
from cellwise.cells.base import Cell

_WITH_GRADIENTS = ("train", "small-train", "recompute", "ragged")


@dataclass(frozen=True)
class Row:
    """One cell, shape and mode: the times of ours and of those beside it, or what was wrong.

    `loaded` holds the times under load. `compile_seconds` is what the first run of a tiny batch took longer than its
    second, with an empty cache of kernels: zero where an earlier row had them compiled.
    """

    cell: str
    shape: Shape
    mode: str
    mismatch: str | None
    compile_seconds: float = 0.0
    flops: int = 0
    times: tuple[Times, ...] = ()
    loaded: tuple[Times, ...] = ()

    @property
    def median(self) -> float:
        """Seconds of one run of ours."""
        return spread(self.times[0].seconds).median

    @property
    def gflops(self) -> float:
        """Ours, in matrix products only."""
        return self.flops / self.median / 1e9

    def speedup(self, other: Times) -> Spread:
        """How many times longer another side took, over pairs of neighbouring runs."""
        return spread(speedups(self.times[0].seconds, other.seconds))

    def slowdowns(self) -> dict[str, float]:
        """How many times longer each side took under load, by medians."""
        return {
            quiet.name: spread(busy.seconds).median / spread(quiet.seconds).median
            for quiet, busy in zip(self.times, self.loaded, strict=bool(self.loaded))
        }

    def to_json(self, peak: Peak) -> dict[str, Any]:
        """All figures, the raw times included."""
        shape = {"T": self.shape.T, "B": self.shape.B, "D": self.shape.D, "H": self.shape.H}
        row = {"cell": self.cell, "shape": shape, "mode": self.mode}
        if self.mismatch is not None:
            return row | {"status": "refused", "problem": self.mismatch}
        sides = []
        for place, times in enumerate(self.times):
            middle = spread(times.seconds).median
            side: dict[str, Any] = {
                "name": times.name,
                "median_seconds": middle,
                "calls_in_a_sample": times.calls,
                "seconds": list(times.seconds),
            }
            if place:
                ratio = self.speedup(times)
                side["ratio_to_ours"] = {**ratio.to_json(), "verdict": verdict(ratio)}
            if self.loaded:
                side["loaded_seconds"] = list(self.loaded[place].seconds)
                side["slowdown_under_load"] = self.slowdowns()[times.name]
            sides.append(side)
        return row | {
            "status": "timed",
            "compile_seconds": self.compile_seconds,
            "flops": self.flops,
            "gflops": self.gflops,
            "share_of_peak": self.gflops / peak.best,
            "sides": sides,
        }


def rows(settings: Settings) -> Iterator[Row]:
    """Measure; each row comes when it is there. Kernels are compiled anew and not kept."""
    with _empty_kernel_cache(), devices.numbers(settings.dtype, settings.precision):
        _load_compiler(settings.device)
        for name, shape, modes in settings.jobs():
            yield from _job(name, shape, modes, settings)


def count(settings: Settings) -> int:
    """How many rows there will be."""
    return sum(len(modes) for _, _, modes in settings.jobs())


def _job(name: str, shape: Shape, modes: tuple[str, ...], settings: Settings) -> Iterator[Row]:
    dtype = devices.dtype_of(settings.dtype)
    implementations = implementations_of(settings.cells[name], shape, dtype=dtype, device=settings.device)
    compiled = {mode: _compile_seconds(mode, implementations) for mode in modes}
    # Everything that the shape is timed on, and the gradients in any case: a shape that is wrong in one is not timed.
    checked = dict.fromkeys(modes if set(modes) <= set(STEPS) else (*modes, "forward", "train"))
    comparisons = {mode: comparison_of(mode, implementations) for mode in checked}
    wrong = _first_mismatch(comparisons)
    for mode in modes:
        if wrong is not None:
            yield Row(name, shape, mode, wrong)
        else:
            yield _timed(Row(name, shape, mode, None, compiled[mode]), comparisons[mode], settings)


def _first_mismatch(comparisons: dict[str, Comparison]) -> str | None:
    for mode, comparison in comparisons.items():
        wrong = comparison.mismatch()
        if wrong is not None:
            return f"{mode}: {wrong}"
    return None


def _timed(row: Row, comparison: Comparison, settings: Settings) -> Row:
    grad = row.mode in _WITH_GRADIENTS
    quiet = interleaved(comparison.candidates, grad, settings.repeats, settings.seconds)
    loaded: tuple[Times, ...] = ()
    if settings.load:
        calls = [each.calls for each in quiet]
        with all_cores_busy():
            loaded = interleaved(comparison.candidates, grad, settings.repeats, settings.seconds, calls)
    return Row(row.cell, row.shape, row.mode, None, row.compile_seconds, comparison.flops, quiet, loaded)


def _compile_seconds(mode: str, implementations: Implementations) -> float:
    work = comparison_of(mode, tiny(implementations)).candidates[0].work
    with torch.set_grad_enabled(mode in _WITH_GRADIENTS):
        first = clocked(work)
        return max(0.0, first - clocked(work))


@contextmanager
def _empty_kernel_cache() -> Iterator[None]:
    before = os.environ.get("CELLWISE_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CELLWISE_CACHE"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["CELLWISE_CACHE"]
            else:
                os.environ["CELLWISE_CACHE"] = before


class _Unlike(Cell):
    """A cell like no other, so that compiling it makes nobody else's kernel."""

    gates = ("n",)

    def step(self, x, h):  # type: ignore[no-untyped-def]
        return x.n - h.n * h


def _load_compiler(device: str) -> None:
    """The first kernel of a process also loads LLVM, or NVRTC, which is no cell's own time."""
    implementations = implementations_of(cells.get(_Unlike), Shape(1, 1, 1, 1), device=device)
    comparison_of("train", implementations).candidates[0].work()
