"""Layers in bfloat16 on a CPU: torch.nn's beside the kernels, and the kernels in float32 beside those in bfloat16.

    python benchmarks/bfloat16.py [--cells lstm,gru,rnn_tanh] [--shapes 100,64,256,256 ...] [--rounds 9]

All sides take turns in one process, on one thread, in processor time, which a machine that others use disturbs least.
Printed are how the kernels multiply, their milliseconds in bfloat16 and, as medians with quartiles over the rounds, how
many times as long the others take. CELLWISE_AMX=off has the same without AMX.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from preference import batch, layers, works

from cellwise.backends.cpu.amx_support import in_words
from cellwise.backends.cpu.target import host
from cellwise.bench.settings import Shape
from cellwise.bench.speedup import Spread, speedups, spread

SHAPES = (
    "100,64,256,256",
    "100,64,512,512",
    "100,64,128,128",
    "100,16,64,128",
    "35,20,650,650",
    "100,1,64,128",
)


def seconds_of(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(family: str, shape: Shape, mode: str, rounds: int) -> list[list[float]]:
    """Seconds round by round of: the kernels and torch in bfloat16, the kernels in float32."""
    sides = []
    for dtype in (torch.bfloat16, torch.float32):
        theirs, ours = (each.to(dtype) for each in layers(family, shape.D, shape.H))
        x = batch(shape.T, shape.B, shape.D, False, dtype)
        given = torch.randn(shape.T, shape.B, shape.H).to(dtype)
        sides += [works(layer, x, given)[mode] for layer in (ours, theirs)]
    taken = sides[:3]
    for work in taken:
        work()
    turns = [[seconds_of(work) for work in taken] for _ in range(rounds)]
    return [list(side) for side in zip(*turns, strict=True)]


def told(ratio: Spread) -> str:
    return f"{ratio.median:5.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", default="lstm,gru,rnn_tanh")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,B,D,H")
    parser.add_argument("--modes", default="infer,train")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(in_words(host()))
    print(f"{'T,B,D,H':16}{'cell':10}{'mode':8}{'ours':>9}   {'torch / ours':24}float32 / bfloat16")
    for shape in map(Shape.parse, arguments.shapes):
        for family in arguments.cells.split(","):
            for mode in arguments.modes.split(","):
                ours, torchs, single = measured(family, shape, mode, arguments.rounds)
                own = f"{spread(ours).median * 1e3:.2f} ms"
                beside = [told(spread(speedups(ours, other))) for other in (torchs, single)]
                print(f"{shape!s:16}{family:10}{mode:8}{own:>9}   {beside[0]:24}{beside[1]}", flush=True)


if __name__ == "__main__":
    main()
