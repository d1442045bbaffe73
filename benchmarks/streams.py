"""What a step of a stream costs beside its kernel, and what cells take that made whole calls of one step before.

    python benchmarks/streams.py [--hidden 64] [--rounds 100]

For a batch of one, D = H, float32, one thread: processor time of a step in microseconds, the lower quartile over rounds
in which all sides take turns in one process. "kernel" is a step's kernel alone, many in a row without Python; "whole
call" is the same stream without a stepper, which calls the layer for each step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import cellwise
from cellwise import Cell, sigmoid, tanh
from cellwise.backends.cpu.chain import Chain
from cellwise.bench import machine
from cellwise.cells import SCRN

STEPS, IN_A_ROW = 50, 50


class Shown(Cell):
    """A GRU that shows its update gate: two outputs."""

    gates = ("r", "z", "n")
    outputs = ("h", "z")

    def step(self, x, h):
        r, z = sigmoid(x.r + h.r), sigmoid(x.z + h.z)
        return z, (1 - z) * tanh(x.n + r * h.n) + z * h


class Highway(Cell):
    """A state that gives way to x as it is."""

    gates = ("z",)

    def step(self, x, h):
        z = sigmoid(x.z + h.z)
        return z * h + (1 - z) * x


CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": ("rnn", {}),
    "gru": ("gru", {}),
    "lstm": ("lstm", {}),
    "several outputs": (Shown, {}),
    "made weights (antisymmetric-rnn)": ("antisymmetric-rnn", {}),
    "gates without bias (mgu2)": ("mgu2", {}),
    "two widths (scrn, 40 slow units)": (SCRN(context=40), {}),
    "x as it is (highway)": (Highway, {}),
    "time-aware-lstm, dt a number": ("time-aware-lstm", {"dt": 0.5}),
    "time-aware-lstm, dt a tensor": ("time-aware-lstm", {"dt": torch.tensor(0.5)}),
}


def ways(cell: Any, given: dict[str, Any], hidden: int) -> dict[str, tuple[Callable[[], Any], int]]:
    """What runs a step, or so many steps."""
    layer, x = cellwise.Recurrent(cell, hidden, hidden, backend="cpu"), torch.randn(hidden)
    into, new, whole, bare = (layer.stream() for _ in range(4))
    out = torch.empty(layer._stream_sizes()[0])
    whole._step = whole._stepper = None
    for _ in range(2):  # so that the kernel of either turn knows where x and y are
        bare(x, out, **given)
    stepper: Any = bare._stepper
    stepper = getattr(stepper, "stepper", stepper)  # that of rows of one width
    links = [(each.call, each.pointers[0].ctypes.data, each.numbers.ctypes.data) for each in stepper._layers]
    chain = Chain(links * IN_A_ROW, keeps_lock=True)

    def kernel(_: Any = bare) -> None:  # whose memory it works in
        chain.run()

    return {
        "kernel": (kernel, IN_A_ROW),
        "out=": (lambda: into(x, out, **given), 1),
        "new": (lambda: new(x, **given), 1),
        "whole call": (lambda: whole(x, **given), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    sides = {name: ways(*each, options.hidden) for name, each in CELLS.items()}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for name, each in sides.items():
            for way, (run, steps) in each.items():
                many = range(max(1, STEPS // steps // (5 if way == "whole call" else 1)))
                start = time.process_time_ns()
                for _ in many:
                    run()
                took = (time.process_time_ns() - start) / (len(many) * steps * 1e3)
                times.setdefault((name, way), []).append(took)
    print(f"{machine.one_line(machine.describe())}\nD = H = {options.hidden}, us a step")
    for name, each in sides.items():
        shown = [f"{way} {statistics.quantiles(times[name, way], n=4)[0]:6.2f}" for way in each]
        print(f"{name:<34} {'   '.join(shown)}")


if __name__ == "__main__":
    main()
