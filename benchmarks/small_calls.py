"""What a call costs that computes next to nothing: one step of one row, on our layers and on torch's.

    python benchmarks/small_calls.py [--hidden 16 64 256] [--seconds 2]

For each cell and hidden size (D = H) two things are timed: the forward pass under torch.no_grad, and a training step
(forward, backward and gradients set to None, without an optimizer). The sides take turns in one process on the same
weights: torch.nn's layer where torch has the cell, ours on backend="cpu" and on backend="auto", and
`cellwise.Recurrent` of the same cell on "cpu". Results are compared first. Printed are microseconds of processor time
on one thread, the median over rounds and the quartiles, and the functions that one call calls, of Python and of C
(sys.setprofile): exact, however busy the machine is.

At the end, of a stream's step: the same for `Stream` (D 64, H 128), with and without `out=`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import cellwise
from cellwise.bench import machine

CELLS: dict[str, tuple[type[nn.Module] | None, type[nn.Module] | None]] = {
    "lstm": (nn.LSTM, cellwise.LSTM),
    "gru": (nn.GRU, cellwise.GRU),
    "rnn": (nn.RNN, cellwise.RNN),
    "lstm-peephole": (None, None),
}
_CALLS_A_ROUND, _ROUNDS = 10, 5  # at least so many rounds


def sides_of(cell: str, size: int) -> dict[str, nn.Module]:
    """The layers that are compared, with equal weights."""
    theirs, ours = CELLS[cell]
    found: dict[str, nn.Module] = {"Recurrent cpu": cellwise.Recurrent(cell, size, size, backend="cpu")}
    if theirs is not None and ours is not None:
        found |= {
            "torch": theirs(size, size),
            "cpu": ours(size, size, backend="cpu"),
            "auto": ours(size, size),
        }
    else:
        found["Recurrent auto"] = cellwise.Recurrent(cell, size, size)
    weights = found["Recurrent cpu"].state_dict()
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
    given = torch.ones(1, 1, parameters[1].shape[1])

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


def line(what: str, name: str, samples: list[float], work: Callable[[], Any]) -> str:
    low, middle, high = statistics.quantiles(samples, n=4)
    python, c = functions(work)
    return f"{what:26} {name:15} {middle:8.1f}  {low:7.1f} to {high:7.1f} {python:7d} {c:5d}"


def streams() -> None:
    """The step of a stream, in one tight loop."""
    layer, x = cellwise.LSTM(64, 128), torch.randn(64)
    stream, out = layer.stream(), torch.empty(128)
    works = {"stream(x)": lambda: stream(x), "stream(x, out=y)": lambda: stream(x, out=out)}
    for name, samples in timed(works, 2.0).items():
        print(line("stream lstm D=64 H=128", name, samples, works[name]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    parser.add_argument("--hidden", nargs="+", type=int, default=[16, 64, 256])
    parser.add_argument("--seconds", type=float, default=2.0, help="For each cell, size and thing done.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine.one_line(machine.describe()))
    print(f"{'':26} {'':15} {'us':>8}  {'quartiles':>18} {'Python':>7} {'C':>5}")
    for cell in arguments.cells:
        for size in arguments.hidden:
            sides, x = sides_of(cell, size), torch.randn(1, 1, size)
            compare(sides, x)
            for what, make in (("forward", forward), ("train", training)):
                works = {name: make(layer, x) for name, layer in sides.items()}
                for name, samples in timed(works, arguments.seconds).items():
                    print(line(f"{what} {cell} H={size}", name, samples, works[name]), flush=True)
    streams()


if __name__ == "__main__":
    main()
