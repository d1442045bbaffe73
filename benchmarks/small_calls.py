"""What a call costs that computes little: few steps of few rows, on our layers and on torch's; and a stream's step.

    python benchmarks/small_calls.py [--shapes 1,1,64,128 4,8,64,128] [--seconds 2] [--threads 1]

For each cell and shape (T, B, D, H) two things are timed: the forward pass under torch.no_grad, and a training step
(forward, backward and gradients set to None, without an optimizer). The sides take turns in one process on the same
weights: torch.nn's layer where torch has the cell, ours on backend="cpu" and on backend="auto", and
`cellwise.Recurrent` of the same cell on "cpu". Results are compared first. Printed are microseconds of processor time
of all threads, the median over rounds and the quartiles, torch's over it, and the functions that one call calls, of
Python and of C (sys.setprofile): exact, however busy the machine is.

At the end the steps of streams (D = H = 64, 100 and 128), with and without `out=`, in a tight loop, and of those the
bare kernel: a hundred of its calls in one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from operator import truediv
from typing import Any

import torch
from torch import Tensor, nn

import cellwise
from cellwise.backends.cpu.chain import Chain
from cellwise.bench import machine
from cellwise.bench.settings import SMALL_SHAPES, Shape

PROJECTED = "lstm-projected"  # to half of the units
CELLS: dict[str, tuple[type[nn.Module] | None, type[nn.Module] | None]] = {
    "lstm": (nn.LSTM, cellwise.LSTM),
    "gru": (nn.GRU, cellwise.GRU),
    "rnn": (nn.RNN, cellwise.RNN),
    "lstm-peephole": (None, None),
    PROJECTED: (nn.LSTM, cellwise.LSTM),
}
# Hidden sizes that are no whole vectors.
ODD_SHAPES = (Shape(1, 1, 64, 50), Shape(3, 2, 37, 100), Shape(4, 8, 64, 200))
_CALLS_A_ROUND, _ROUNDS = 10, 5  # at least so many rounds
_KERNELS = 100


def sides_of(cell: str, D: int, H: int) -> dict[str, nn.Module]:
    """The layers that are compared, with equal weights."""
    theirs, ours = CELLS[cell]
    options: dict[str, Any] = {"proj_size": H // 2} if cell == PROJECTED else {}
    found: dict[str, nn.Module] = {}
    if not options:
        found["Recurrent cpu"] = cellwise.Recurrent(cell, D, H, backend="cpu")
    if theirs is not None and ours is not None:
        found |= {"torch": theirs(D, H, **options), "auto": ours(D, H, **options)}
        found["cpu"] = ours(D, H, backend="cpu", **options)
    else:
        found["Recurrent auto"] = cellwise.Recurrent(cell, D, H)
    weights = next(iter(found.values())).state_dict()
    for layer in found.values():
        layer.load_state_dict(weights)
    return dict(sorted(found.items(), key=lambda each: each[0] != "torch"))


def forward(layer: nn.Module, x: Tensor) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad():
            return layer(x)

    return run


def training(layer: nn.Module, x: Tensor) -> Callable[[], Any]:
    parameters = list(layer.parameters())
    given = torch.ones(*x.shape[:2], parameters[1].shape[1])

    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        layer(x)[0].backward(given)

    return run


def compare(sides: dict[str, nn.Module], x: Tensor) -> None:
    """Raise AssertionError if results or gradients differ."""
    found = []
    for layer in sides.values():
        output, _ = layer(x)
        layer.zero_grad()
        output.sin().sum().backward()
        found.append([output.detach(), *[each.grad for each in layer.parameters()]])
        layer.zero_grad()
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-5)


def timed(works: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Microseconds of processor time of a call in each round; the sides take turns."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, found.values())) < _ROUNDS:
        for name, work in works.items():
            start = time.process_time()
            for _ in range(_CALLS_A_ROUND):
                work()
            found[name].append((time.process_time() - start) / _CALLS_A_ROUND * 1e6)
    return found


def functions(work: Callable[[], Any]) -> tuple[int, int]:
    """Functions of Python, and of C, that one call calls."""
    counts = {"call": 0, "c_call": 0}

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event in counts:
            counts[event] += 1

    work()
    before = sys.getprofile()
    sys.setprofile(profile)
    work()
    sys.setprofile(before)
    return counts["call"] - 1, counts["c_call"] - 1  # without `run` itself, and the end of profiling


def line(
    what: str, name: str, samples: list[float], work: Callable[[], Any], theirs: list[float] | None = None
) -> str:
    low, middle, high = statistics.quantiles(samples, n=4)
    python, c = functions(work)
    ratio = "" if theirs is None else f"{statistics.median(map(truediv, theirs, samples)):5.2f}"
    return f"{what:28} {name:15} {middle:8.1f}  {low:7.1f} to {high:7.1f} {ratio:>5} {python:7d} {c:5d}"


def streams(cell: str, seconds: float) -> None:
    """The step of a stream, in one tight loop."""
    for size in (64, 100, 128):
        sides: dict[str, Any] = sides_of(cell, size, size)
        layer = sides.get("cpu") or sides["Recurrent cpu"]
        x, stream = torch.randn(size), layer.stream()
        out = stream(x)
        stepper: Any = stream._stepper
        bare = Chain(stepper.links(0)[1] * _KERNELS)

        def kernel(stepper: Any = stepper, bare: Chain = bare) -> None:
            stepper.keep_output()  # what a step before this one was given may be gone
            bare.run()

        works = {
            "kernel": kernel,
            "stream(x)": partial(stream, x),
            "stream(x, out=y)": partial(stream, x, out=out),
        }
        found = timed(works, seconds)
        found["kernel"] = [each / _KERNELS for each in found["kernel"]]
        for name, samples in found.items():
            print(line(f"step {cell} D=H={size}", name, samples, works[name]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    shapes = [str(shape) for shape in (*SMALL_SHAPES, *ODD_SHAPES)]
    parser.add_argument("--shapes", nargs="*", default=shapes, metavar="T,B,D,H")
    parser.add_argument("--seconds", type=float, default=2.0, help="For each cell, shape and thing done.")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine.one_line(machine.describe()))
    print(f"{'':28} {'':15} {'us':>8}  {'quartiles':>18} {'ratio':>5} {'Python':>7} {'C':>5}")
    for cell in arguments.cells:
        for shape in map(Shape.parse, arguments.shapes):
            sides, x = sides_of(cell, shape.D, shape.H), torch.randn(shape.T, shape.B, shape.D)
            compare(sides, x)
            for what, make in (("forward", forward), ("train", training)):
                works = {name: make(layer, x) for name, layer in sides.items()}
                found = timed(works, arguments.seconds)
                for name, samples in found.items():
                    print(
                        line(f"{what} {cell} {shape}", name, samples, works[name], found.get("torch")),
                        flush=True,
                    )
    for cell in arguments.cells:
        streams(cell, arguments.seconds)


if __name__ == "__main__":
    main()
