"""Kernels that multiply each step's input within the step beside those that do it for blocks of steps, by size.

    python benchmarks/blocks.py                                    # the table in backends/cpu/blocks.py
    python benchmarks/blocks.py --cells gru --shapes 200,1,512,256 --dtype float64

Both make the same inference in turns, in one process and on one thread, after their results were compared. A number is
the median over rounds of the first's processor time over the second's: above 1 blocks are faster.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest import mock

import torch
from preference import clock_of, samples

import cellwise
from cellwise.backends.compiled.cell_kernels import kernels_for
from cellwise.backends.compiled.forward_pass import ForwardPass
from cellwise.backends.compiled.time_schedule import even_schedule
from cellwise.backends.cpu import compiler
from cellwise.backends.cpu.target import host

SIZES = ((64, 128), (256, 256), (512, 256), (512, 512), (650, 650), (1024, 1024))  # D, H
BATCHES = (1, 2, 3, 4, 8, 16, 20)


def sides(cell: str, shape: tuple[int, ...], dtype: torch.dtype) -> list[Callable[[], torch.Tensor]]:
    """A forward pass within the steps, and one in blocks, on the same numbers."""
    T, B, D, H = shape
    layer = cellwise.Recurrent(cell, D, H, dtype=dtype)
    weights = [weight.detach() for weight in layer.parameters()]
    graph = layer.cell.graph
    kernels = kernels_for(graph, dtype, compiler.llvm_compiler(host()), False, False)
    x = torch.randn(T * B, D, dtype=dtype)
    states = [torch.zeros(B, H, dtype=dtype) for _ in graph.states]
    arguments: Any = (kernels, True, (D, H, 0), even_schedule(T, B, False), False, False, x.device)

    def side(in_blocks: bool) -> Callable[[], torch.Tensor]:
        made = ForwardPass(*arguments)
        with mock.patch.object(compiler, "in_blocks", lambda *_: in_blocks):
            made.run(x, states, weights, None)  # which opens the run that it then keeps
        return lambda: made.run(x, states, weights, None)[0]

    found = [side(False), side(True)]
    tolerance = 1e-4 if dtype is torch.float32 else 1e-10
    torch.testing.assert_close(found[1](), found[0](), rtol=tolerance, atol=tolerance)
    return found


def ratio(cell: str, shape: tuple[int, ...], dtype: torch.dtype, seconds: float) -> float:
    within, blocks = samples(sides(cell, shape, dtype), clock_of(1), seconds)
    return median(a / b for a, b in zip(within, blocks, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=["lstm", "gru"])
    parser.add_argument("--shapes", nargs="*", metavar="T,B,D,H", help="[default: those of the table]")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--seconds", type=float, default=0.05, help="For each number, beyond three rounds.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shapes = [tuple(map(int, each.split(","))) for each in given.shapes or ()]
    shapes = shapes or [(64, batch, *size) for size in SIZES for batch in BATCHES]
    for shape in shapes:
        found = [ratio(cell, shape, getattr(torch, given.dtype), given.seconds) for cell in given.cells]
        print(
            ",".join(map(str, shape)).ljust(18),
            " ".join(f"{a} {b:.2f}" for a, b in zip(given.cells, found, strict=True)),
        )


if __name__ == "__main__":
    main()
