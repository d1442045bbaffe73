"""The compiled kernels beside torch.nn, or, for cells that torch has no operator for, beside the reference.

    python benchmarks/layers.py [--cells gru,lstm,rnn,lstm-peephole] [--shapes 100,64,256,256 ...] [--repeats 9]

Both sides alternate in one process, on the same weights and input, in float32. Before a shape is timed, its results
are compared; a wrong one is not timed. Printed: the median time of each side, the median of the ratios of neighbouring
runs (above 1 the kernels are faster) with its quartiles, and the kernels' GFLOP/s in products.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import cellwise
from cellwise.backends.cpu.target import host

SHAPES = (
    "100,16,64,128",
    "100,64,128,128",
    "100,64,256,256",
    "100,64,512,512",
    "35,20,650,650",
    "784,64,1,128",
    "50,256,32,32",
    "100,1,64,128",
)


def pair(name: str, D: int, H: int) -> tuple[cellwise.Recurrent, cellwise.Recurrent, str]:
    """A layer on the kernels, the same layer on what it is compared with, and the name of that."""
    ours = cellwise.Recurrent(name, D, H, backend="cpu")
    theirs = cellwise.Recurrent(name, D, H)
    theirs.load_state_dict(ours.state_dict())
    x = torch.zeros(1, 1, D)
    theirs.backend = "native" if dict(cellwise.explain(theirs, x).reasons)["native"] is None else "reference"
    return ours, theirs, theirs.backend


def forward(layer: cellwise.Recurrent, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [layer(x)[0]]


def train(layer: cellwise.Recurrent, x: Tensor) -> list[Tensor]:
    output = layer(x)[0]
    return list(torch.autograd.grad(output.square().sum(), [x, *layer.parameters()]))


def clocked(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(name: str, shape: str, mode: Callable[..., list[Tensor]], repeats: int) -> str:
    T, B, D, H = map(int, shape.split(","))
    torch.manual_seed(0)
    ours, theirs, against = pair(name, D, H)
    x = torch.randn(T, B, D, requires_grad=True)
    for found, wanted in zip(mode(ours, x), mode(theirs, x), strict=True):
        scale = wanted.abs().max().item()
        if not torch.allclose(found, wanted, rtol=0, atol=1e-3 * scale):
            return f"{name:<14} {shape:<15} {mode.__name__:<8} not timed: the results differ"
    times = [(clocked(lambda: mode(ours, x)), clocked(lambda: mode(theirs, x))) for _ in range(repeats)]
    ratios = sorted(b / a for a, b in times)
    mine, other = (statistics.median(side) for side in zip(*times, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    plan = ours.plan
    products = 2 * T * B * H * (len(plan.input_gates) * D + len(plan.state_gates) * H)
    rate = products * (3 if mode is train else 1) / mine / 1e9
    return (
        f"{name:<14} {shape:<15} {mode.__name__:<8} {mine * 1e3:8.1f} ms  {against:<9} {other * 1e3:8.1f} ms  "
        f"ratio {middle:5.2f} ({low:.2f} to {high:.2f})  {rate:4.0f} GFLOP/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", default="gru,rnn,lstm,gru-reset-before,lstm-peephole,mingru,indrnn")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,B,D,H")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{platform.machine()} {host().cpu}, vectors of {host().vector_bytes} bytes, {arguments.threads} threads, "
        f"torch {torch.__version__}, cellwise {cellwise.__version__}, {arguments.repeats} repeats"
    )
    for name in arguments.cells.split(","):
        for shape in arguments.shapes:
            for mode in (forward, train):
                print(compare(name, shape, mode, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
