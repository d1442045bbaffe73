"""How the time of a layer grows with length, batch and hidden size: measured on this machine, and as predicted.

The time of a layer is measured at sizes that halve from the largest down; its exponent is the slope of log time over
log size. The prediction is the slope of the counted operations over the same sizes, so that both would be equal if
every operation took the same time and nothing else took any. What a call costs at any size pulls the slope down, so
the exponent of what comes on top of it is fitted too. Time is that of the processor, on one thread: on a quiet machine
it is what a clock shows, on a busy one it leaves out the waiting.
"""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from cellwise.cells.base import Cell
from cellwise.nn import Recurrent, explain
from cellwise.plan.cost import Cost
from cellwise.plan.polynomial import Polynomial
from cellwise.understand.complexity import ComplexityError, Sizes, complexity

__all__ = ["FIELDS", "PASSES", "Curve", "Fit", "Scaling", "measure", "ranges"]

FIELDS = {"t": "length", "b": "batch", "h": "hidden_size"}
PASSES = ("forward", "training step")
_POINTS, _FEWEST = 6, 4
_SAMPLE = 0.005  # seconds; what is shorter is called several times
_EXPONENTS = np.arange(30, 301) / 100  # those that are tried beside a fixed cost


def ranges(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """For each letter that is varied, its values from small to large: halves of the given size, at most six.

    Raises:
        ComplexityError: a size cannot be halved often enough for a slope.

    >>> ranges(Sizes(length=100, batch=8, hidden_size=64))["t"]
    (3, 6, 12, 25, 50, 100)
    """
    found = {}
    for letter, name in FIELDS.items():
        largest = getattr(sizes, name)
        halves = [largest >> i for i in range(_POINTS) if largest >> i]
        if len(halves) < _FEWEST:
            raise ComplexityError(
                f"an exponent is fitted to at least {_FEWEST} sizes, each half of the next, so the largest "
                f"{name.replace('_', ' ')} must be at least {1 << (_FEWEST - 1)}; got {largest}."
            )
        found[letter] = tuple(halves[::-1])
    return found


@dataclass(frozen=True)
class Fit:
    """A figure with its spread: the median over the repeats, the lowest and the highest."""

    middle: float
    low: float
    high: float

    @staticmethod
    def of(numbers: Sequence[float]) -> Fit:
        return Fit(statistics.median(numbers), min(numbers), max(numbers))

    @property
    def is_sure(self) -> bool:
        """Whether the repeats agree to a half."""
        return self.high - self.low <= 0.5

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Curve:
    """One cell and pass over the sizes of one letter. `seconds` holds for each size one number per repeat."""

    cell: str
    work: str
    letter: str
    sizes: tuple[int, ...]
    seconds: tuple[tuple[float, ...], ...]
    operations: tuple[int, ...]  # at each size
    terms: tuple[int, int]  # operations that grow with the letter, and with its square, at size 1

    @property
    def medians(self) -> tuple[float, ...]:
        return tuple(statistics.median(each) for each in self.seconds)

    @property
    def exponent(self) -> Fit:
        """The slope of log time over log size, over all sizes."""
        return Fit.of([slope(self.sizes, each) for each in zip(*self.seconds, strict=True)])

    @cached_property
    def exponent_of_growth(self) -> Fit:
        """The exponent p of the best fit of fixed + growing * size ** p."""
        return Fit.of([exponent_of_growth(self.sizes, each) for each in zip(*self.seconds, strict=True)])

    @property
    def predicted_exponent(self) -> float:
        return slope(self.sizes, self.operations)

    @property
    def linear(self) -> str:
        """Whether that exponent is 1, to a tenth: "yes", "no", or "unsure" where the repeats leave it open."""
        found = self.exponent_of_growth
        near = abs(found.middle - 1) <= 0.1
        if not found.is_sure or (not near and found.low <= 1 <= found.high):
            return "unsure"
        return "yes" if near else "no"

    @property
    def predicted_crossing(self) -> float | None:
        """The size at which as many operations grow with its square as with itself; None if there is no square."""
        linear, square = self.terms
        return linear / square if square else None

    @property
    def measured_crossing(self) -> Fit | None:
        """The same in time; None if the times show no square, or nothing beside it."""
        found = [crossing(self.sizes, each) for each in zip(*self.seconds, strict=True)]
        known = [each for each in found if each is not None]
        return Fit.of(known) if len(known) * 2 > len(found) else None


def slope(sizes: Sequence[int], numbers: Sequence[float]) -> float:
    """The exponent p of numbers that grow as size ** p, by least squares on the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(np.asarray(numbers, float)), 1)[0])


def exponent_of_growth(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The exponent p for which fixed + growing * size ** p, neither negative, is nearest to `seconds`.

    >>> exponent_of_growth((1, 2, 4, 8, 16), [7 + 0.5 * n**1.5 for n in (1, 2, 4, 8, 16)])
    1.5
    """
    fixed = 1 / np.asarray(seconds, float)  # relative errors: the times lie far apart
    growing = (np.asarray(sizes, float) / sizes[-1]) ** _EXPONENTS[:, None] * fixed
    # For all exponents at once: the least squares of two terms that should add up to ones, or of one of them.
    a, b, c = fixed @ fixed, growing @ fixed, (growing * growing).sum(1)
    alone, beside = fixed.sum(), growing.sum(1)
    first, second = c * alone - b * beside, a * beside - b * alone
    scale = a * c - b * b
    first, second = (
        np.where(first < 0, 0, np.where(second < 0, alone / a, first / scale)),
        np.where(first < 0, beside / c, np.where(second < 0, 0, second / scale)),
    )
    errors = ((first[:, None] * fixed + second[:, None] * growing - 1) ** 2).sum(1)
    return float(_EXPONENTS[int(np.argmin(errors))])


def crossing(sizes: Sequence[int], seconds: Sequence[float]) -> float | None:
    """Where the terms a size and b size ** 2 of `seconds` are equal, in the best fit without negative terms.

    >>> round(crossing((1, 2, 4, 8, 16), [5 + 6 * n + 2 * n * n for n in (1, 2, 4, 8, 16)]), 6)
    3.0
    """
    x, y = np.asarray(sizes, float), np.asarray(seconds, float)
    terms = np.stack([np.ones_like(x), x, x * x], axis=1) / y[:, None]
    best, error = np.zeros(3), math.inf
    for chosen in itertools.product((False, True), repeat=3):
        part = terms[:, chosen]
        found = np.linalg.lstsq(part, np.ones_like(y), rcond=None)[0]
        left = float(((part @ found - 1) ** 2).sum())
        if (found >= 0).all() and left < error:
            best, error = np.zeros(3), left
            best[list(chosen)] = found
    return float(best[1] / best[2]) if best[1] > 0 and best[2] > 0 else None


@dataclass(frozen=True)
class Scaling:
    """What was measured, and how."""

    curves: tuple[Curve, ...]
    sizes: Sizes
    repeats: int
    backends: tuple[tuple[str, str], ...]  # cell, backend that ran it

    def of(self, work: str, letter: str) -> tuple[Curve, ...]:
        return tuple(curve for curve in self.curves if (curve.work, curve.letter) == (work, letter))


@dataclass(eq=False)
class _Case:
    """One layer on one input, in one pass."""

    work: Callable[[], object]
    calls: int = 1
    seconds: list[float] = field(default_factory=list)


def measure(
    cells: Sequence[Cell],
    sizes: Sizes,
    repeats: int = 7,
    backend: str = "auto",
    report: Callable[[str], None] = lambda line: None,
) -> Scaling:
    """Run layers of each cell, float32, on one thread, forward and forward with backward, at all `ranges(sizes)`.

    All cases are run in turn, `repeats` times, so that what drifts in the machine falls on all alike. The number of
    threads of torch is put back.

    Args:
        sizes: the largest length, batch and hidden size; input size and layers are the same in all.
        report: is told how far it is.

    Raises:
        ComplexityError: a range is too small, or fewer than one repeat is asked for.
    """
    varied = ranges(sizes)
    if repeats < 1:
        raise ComplexityError(f"at least one repeat is needed; got {repeats}.")
    twice = [name for name, many in Counter(cell.name for cell in cells).items() if many > 1]
    if twice:
        raise ComplexityError(f"two of the cells are called {twice[0]}; each needs a name of its own.")
    points = {replace(sizes, **{FIELDS[k]: n}) for k, each in varied.items() for n in each}
    with _one_thread():
        cases, backends = {}, []
        for cell in cells:
            report(f"{cell.name}: warming up at {len(points)} sizes")
            layers = {point: _layer(cell, point, backend) for point in points}
            ran = explain(layers[sizes], _input(sizes)).chosen
            backends.append((cell.name, str(ran)))
            for point, layer in layers.items():
                for work in PASSES:
                    cases[cell.name, work, point] = _warm(_work(layer, point, work))
        for number in range(repeats):
            report(f"repeat {number + 1} of {repeats}")
            for case in cases.values():
                case.seconds.append(_lowest(case))
    curves = []
    for cell, work, letter in itertools.product(cells, PASSES, varied):
        at = [replace(sizes, **{FIELDS[letter]: n}) for n in varied[letter]]
        seconds = tuple(tuple(cases[cell.name, work, point].seconds) for point in at)
        curves.append(_curve(complexity(cell, sizes.layers), cell.name, work, letter, sizes, at, seconds))
    return Scaling(tuple(curves), sizes, repeats, tuple(backends))


def _curve(
    cost: Cost,
    cell: str,
    work: str,
    letter: str,
    sizes: Sizes,
    at: Sequence[Sizes],
    seconds: tuple[tuple[float, ...], ...],
) -> Curve:
    total = cost.forward.total if work == "forward" else cost.forward.total + cost.backward.total
    name = FIELDS[letter]
    linear, square = (_coefficient(total, letter, power, sizes) for power in (1, 2))
    return Curve(
        cell,
        work,
        letter,
        tuple(getattr(point, name) for point in at),
        seconds,
        tuple(total.at(**point.letters) for point in at),
        (linear, square),
    )


def _coefficient(total: Polynomial, letter: str, power: int, sizes: Sizes) -> int:
    return total.part(letter, power).at(**(sizes.letters | {letter: 1}))


def _layer(cell: Cell, sizes: Sizes, backend: str) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Recurrent(cell, sizes.input_size, sizes.hidden_size, sizes.layers, backend=backend)


def _input(sizes: Sizes) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(sizes.length, sizes.batch, sizes.input_size, generator=generator)


def _work(layer: nn.Module, sizes: Sizes, work: str) -> Callable[[], object]:
    x = _input(sizes)
    if work == "forward":

        def forward() -> object:
            with torch.inference_mode():
                return layer(x)

        return forward
    x.requires_grad_()
    with torch.no_grad():
        gradient = torch.ones_like(layer(x)[0])

    def train() -> None:
        for tensor in (x, *layer.parameters()):
            tensor.grad = None
        layer(x)[0].backward(gradient)

    return train


def _warm(work: Callable[[], object]) -> _Case:
    work()
    once = _seconds(work, 1)
    return _Case(work, max(1, math.ceil(_SAMPLE / once)))


def _lowest(case: _Case) -> float:
    """Of short samples the lowest of three: another process that comes between makes one longer, never shorter."""
    first = _seconds(case.work, case.calls)
    more = 0 if first * case.calls > 4 * _SAMPLE else 2
    return min([first, *(_seconds(case.work, case.calls) for _ in range(more))])


def _seconds(work: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        work()
    # A clock that has not moved says less than one of its ticks.
    return max(time.process_time() - start, time.get_clock_info("process_time").resolution) / calls


@contextmanager
def _one_thread() -> Iterator[None]:
    threads, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(1)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if collecting:
            gc.enable()
