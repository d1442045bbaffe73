"""Batches whose rows have several lengths, drawn anew for each call: our layers and torch's packed ones.

    python benchmarks/lengths.py [--shapes 10,8,64,64 50,16,64,128] [--seconds 1] [--forward] [--bidirectional]

For each cell and shape (T, B, D, H), in float32 on one thread: a training step (forward, backward and gradients set to
None), or with `--forward` a forward pass without gradients. Each row has between T / 2 and T steps. Sides take turns in
one process on the same weights: torch.nn's layer between pack_padded_sequence and pad_packed_sequence; ours on
backend="cpu" with `lengths=`, with lengths that are always the same, and on such a packed sequence; and ours on a dense
batch of as many rows that has as many steps in all. Results are compared first. Printed are microseconds of processor
time, the median over rounds of ten calls, torch's over that of other lengths in each call, and that over the dense one.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import cellwise
from cellwise.bench import machine
from cellwise.bench.settings import Shape

CELLS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "lstm": (nn.LSTM, cellwise.LSTM),
    "gru": (nn.GRU, cellwise.GRU),
    "rnn": (nn.RNN, cellwise.RNN),
}
SHAPES = (
    "4,2,32,32",
    "8,4,16,16",
    "10,8,64,64",
    "20,4,64,128",
    "30,8,64,128",
    "50,16,64,128",
    "50,32,64,128",
)
_CALLS, _BATCHES, _LEAST_ROUNDS = 10, 600, 5


def drawn(draw: random.Random, T: int, B: int) -> Tensor:
    """Lengths, one of which is T."""
    found = [draw.randint(max(1, T // 2), T) for _ in range(B)]
    found[draw.randrange(B)] = T
    return torch.tensor(found)


def sides_of(theirs: Any, ours: Any, shape: Shape, records: bool) -> dict[str, Callable[[], Any]]:
    draw, x = random.Random(1), torch.randn(shape.B, shape.T, shape.D)
    known = drawn(draw, shape.T, shape.B)
    dense = torch.randn(shape.B, max(1, round(known.float().mean().item())), shape.D)
    fresh = itertools.cycle([drawn(draw, shape.T, shape.B) for _ in range(_BATCHES)])
    ones: dict[tuple[int, ...], Tensor] = {}

    def done(layer: nn.Module, run: Callable[[], Tensor]) -> Callable[[], None]:
        parameters = list(layer.parameters())

        def step() -> None:
            if not records:
                with torch.no_grad():
                    run()
                return
            for parameter in parameters:
                parameter.grad = None
            output = run()
            if output.shape not in ones:
                ones[output.shape] = torch.ones_like(output)
            output.backward(ones[output.shape])

        return step

    def padded() -> Tensor:
        packed = theirs(pack_padded_sequence(x, next(fresh), True, enforce_sorted=False))[0]
        return pad_packed_sequence(packed, True, total_length=shape.T)[0]

    def packed() -> Tensor:
        found: Tensor = ours(pack_padded_sequence(x, next(fresh), True, enforce_sorted=False))[0].data
        return found

    packed_once = theirs(pack_padded_sequence(x, known, True, enforce_sorted=False))[0]
    wanted = pad_packed_sequence(packed_once, True, total_length=shape.T)[0]
    torch.testing.assert_close(ours(x, lengths=known)[0], wanted, atol=1e-5, rtol=1e-5)
    return {
        "torch": done(theirs, padded),
        "others": done(ours, lambda: ours(x, lengths=next(fresh))[0]),
        "the same": done(ours, lambda: ours(x, lengths=known)[0]),
        "packed": done(ours, packed),
        "dense": done(ours, lambda: ours(dense)[0]),
    }


def medians(sides: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        for _ in range(3):
            work()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, found.values())) < _LEAST_ROUNDS:
        for name, work in sides.items():
            start = time.process_time()
            for _ in range(_CALLS):
                work()
            found[name].append((time.process_time() - start) / _CALLS * 1e6)
    return {name: statistics.median(samples) for name, samples in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", nargs="+", default=list(CELLS))
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,B,D,H")
    parser.add_argument("--seconds", type=float, default=1.0, help="For each cell and shape.")
    parser.add_argument("--forward", action="store_true")
    parser.add_argument("--bidirectional", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine.one_line(machine.describe()))
    names = ("torch", "others", "the same", "packed", "dense")
    print(f"{'':20}", *(f"{name:>9}" for name in (*names, "torch/us", "us/dense")))
    for shape, cell in itertools.product(map(Shape.parse, options.shapes), options.cells):
        torch.manual_seed(0)
        settings: dict[str, Any] = {"batch_first": True, "bidirectional": options.bidirectional}
        theirs, ours = CELLS[cell]
        layers = theirs(shape.D, shape.H, **settings), ours(shape.D, shape.H, backend="cpu", **settings)
        layers[1].load_state_dict(layers[0].state_dict())
        found = medians(sides_of(*layers, shape, not options.forward), options.seconds)
        ratios = found["torch"] / found["others"], found["others"] / found["dense"]
        told = [f"{found[name]:9.0f}" for name in names] + [f"{ratio:9.2f}" for ratio in ratios]
        print(f"{cell + ' ' + str(shape):20}", *told, flush=True)


if __name__ == "__main__":
    main()
