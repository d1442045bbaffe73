"""What any cell takes on the kernels for a CPU for each product with weights, beside the LSTM.

    python benchmarks/own_cells.py [CELL ...] [--shape 50,64,128,128] [--rounds 7]

Cells that ship stand for cells of one's own: they are written in the same words, and nothing in the kernels knows them.
For a shape (T, B, D, H), float32, backend="cpu", one thread: processor time forward and in a training step, divided by
the operations of the products that `cellwise complexity` counts, over the same of the LSTM; the median of rounds in
which both take turns. So 1 means that all else in the equations costs what it costs in an LSTM. Left out are cells
without a product with a state, which wait for memory, and those with values beside x. At the end, how many stay within
1.3, and the worst.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import cellwise
from cellwise import cells
from cellwise.errors import CellwiseError
from cellwise.understand.complexity import complexity

MODES = ("forward", "training")
WITHIN = 1.3


def calls_of(name: str, shape: list[int]) -> dict[str, tuple[Callable[[], object], int]]:
    """A call in each mode, and the operations of its products."""
    T, B, D, H = shape
    torch.manual_seed(0)
    layer, x = cellwise.Recurrent(name, D, H, backend="cpu"), torch.randn(T, B, D, requires_grad=True)
    cost = complexity(name)
    sizes = {"t": T, "b": B, "d": D, "h": H}
    forward, backward = (each.products.at(**sizes) for each in (cost.forward, cost.backward))
    leaves = [x, *layer.parameters()]

    def infer() -> object:
        with torch.no_grad():
            return layer(x)

    def train() -> object:
        output = layer(x)[0]
        output = output if isinstance(output, torch.Tensor) else output[0]
        return torch.autograd.grad(output.sum(), leaves, allow_unused=True)

    return {"forward": (infer, forward), "training": (train, forward + backward)}


def seconds(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def ratios(name: str, shape: list[int], rounds: int) -> list[float]:
    """For each mode, time for each product's operation over the LSTM's."""
    own, lstm = calls_of(name, shape), calls_of("lstm", shape)
    found = []
    for mode in MODES:
        (call, operations), (other, theirs) = own[mode], lstm[mode]
        for run in (call, other):
            run()
        times = [seconds(call) / seconds(other) for _ in range(rounds)]
        found.append(statistics.median(times) * theirs / operations)
    return found


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("cells", nargs="*", metavar="CELL", help="names of cells; else all that ship")
    options.add_argument("--shape", default="50,64,128,128", metavar="T,B,D,H")
    options.add_argument("--rounds", type=int, default=7)
    given = options.parse_args()
    shape = [int(each) for each in given.shape.split(",")]
    torch.set_num_threads(1)
    measured = {}
    print(f"{'':<24} {'forward':>8} {'training':>8}")
    for name in given.cells or cells.names():
        graph = cells.get(name).graph
        if not graph.state_gates or graph.inputs:
            continue
        try:
            measured[name] = ratios(name, shape, given.rounds)
        except CellwiseError as error:
            print(f"{name:<24} {str(error).splitlines()[0]}")
            continue
        print(f"{name:<24} {measured[name][0]:>8.2f} {measured[name][1]:>8.2f}", flush=True)
    for place, mode in enumerate(MODES):
        within = sum(each[place] <= WITHIN for each in measured.values())
        worst = sorted(measured, key=lambda name: -measured[name][place])[:5]
        print(
            f"{mode}: {within} of {len(measured)} within {WITHIN}; "
            f"the worst {', '.join(f'{name} {measured[name][place]:.2f}' for name in worst)}"
        )


if __name__ == "__main__":
    main()
