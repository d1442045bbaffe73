"""What numbers too small to be normal cost: python benchmarks/denormals.py [T B D H]

A state that a cell carries unchanged is either ordinary (0.1) or subnormal (1e-40), and so are the gradients that
arrive; all else is the same. Prints the processor's time on one thread, medians of interleaved runs; "flushed" is with
torch.set_flush_denormal(True), which makes such numbers zero on this thread.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

import cellwise

ORDINARY, SUBNORMAL, ROUNDS = 0.1, 1e-40, 15
LAYERS = {"lstm": (cellwise.LSTM, torch.nn.LSTM), "gru": (cellwise.GRU, torch.nn.GRU)}


def layer_of(kind: str, ours: bool, inputs: int, hidden: int) -> torch.nn.Module:
    """A layer whose state stays as it is: an LSTM with i = 0 and f = 1, a GRU with z = 1."""
    torch.manual_seed(1)
    layer = LAYERS[kind][0](inputs, hidden, backend="cpu") if ours else LAYERS[kind][1](inputs, hidden)
    with torch.no_grad():
        layer.bias_ih_l0.zero_()
        layer.bias_hh_l0.zero_()
        layer.bias_ih_l0[hidden : 2 * hidden] = 40
        if kind == "lstm":
            layer.bias_ih_l0[:hidden] = -200
    return layer


def run_of(
    kind: str, ours: bool, size: float, train: bool, sizes: tuple[int, int, int, int]
) -> Callable[[], None]:
    steps, batch, inputs, hidden = sizes
    layer = layer_of(kind, ours, inputs, hidden)
    x = torch.zeros(steps, batch, inputs, requires_grad=train)
    h = size * (1 + torch.rand(1, batch, hidden))
    state = (h, h.clone()) if kind == "lstm" else h
    arriving = size * (1 + torch.rand(steps, batch, hidden))

    def run() -> None:
        with torch.set_grad_enabled(train):
            output, _ = layer(x, state)
            if train:
                output.backward(arriving)

    return run


def main(sizes: tuple[int, int, int, int]) -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, T, B, D, H = {sizes}, ms")
    for kind in LAYERS:
        for train in (False, True):
            for ours in (True, False):
                runs = {size: run_of(kind, ours, size, train, sizes) for size in (ORDINARY, SUBNORMAL)}
                asked = {
                    "ordinary": (ORDINARY, False),
                    "subnormal": (SUBNORMAL, False),
                    "flushed": (SUBNORMAL, True),
                }
                times: dict[str, list[float]] = {name: [] for name in asked}
                for _ in range(ROUNDS):
                    for name, (size, flush) in asked.items():
                        torch.set_flush_denormal(flush)
                        start = time.thread_time()
                        runs[size]()
                        times[name].append(1e3 * (time.thread_time() - start))
                torch.set_flush_denormal(False)
                found = {name: statistics.median(each[2:]) for name, each in times.items()}
                row = "  ".join(f"{name} {found[name]:7.2f}" for name in asked)
                print(
                    f"{kind:<5} {'training' if train else 'forward':<9} {'cellwise' if ours else 'torch':<9} {row}"
                )


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    main((given[0], given[1], given[2], given[3]) if given else (100, 32, 64, 128))
