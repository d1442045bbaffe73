"""The table of speed floors, which are for one thread: torch.nn's layers beside the kernels, float32, shape by shape.

    python benchmarks/floors.py                                    # the whole table, about 15 minutes
    python benchmarks/floors.py --shapes 35,20,650,650 --cells gru --modes train --rounds 9
    python benchmarks/floors.py --threads 2                        # by the clock, on a machine that is quiet

All sides take turns in one process on the same weights and input, after their results were compared, in processor time,
which a machine that others use disturbs least; with several threads by the clock. A number is torch's time over that of
the kernels ("cpu"), each the fastest of the rounds; in brackets the quartiles of the ratios round by round; `floor` is
what is asked for. Behind it which of the two "auto" takes, and for inference in one thread how many times as long
onnxruntime takes, where it is installed.

"ragged" is a padded batch of 200 steps, 16 rows, D = H = 64, with lengths of 50 to 100 %: torch packs it, computes and
unpacks it; ours is given `lengths`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from preference import layers, works
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import cellwise
from cellwise.bench import onnx
from cellwise.bench.implementations import Batch
from cellwise.bench.settings import Shape
from cellwise.bench.speedup import speedups, spread

CELLS = ("lstm", "gru", "rnn_tanh")
MODES = ("infer", "train")
# T,B,D,H: for each cell the least ratio in inference and in training.
FLOORS = {
    "100,64,256,256": ((1.08, 1.6), (1.7, 1.9), (1.6, 1.6)),
    "100,64,128,128": ((1.12, 1.8), (1.9, 2.5), (1.9, 2.0)),
    "100,64,512,512": ((1.05, 1.3), (1.7, 1.6), (1.4, 1.4)),
    "35,20,650,650": ((1.3, 1.3), (1.5, 1.6), (1.5, 1.6)),
    "784,64,1,128": ((1.4, 2.5), (3.0, 3.5), (2.5, 2.4)),
    "50,256,32,32": ((1.05, 1.5), (2.0, 2.2), (2.0, 2.0)),
    "100,16,64,128": ((1.1, 1.3), (2.3, 3.0), (2.2, 2.2)),
    "100,1,64,128": ((1.2, 1.2), (3.5, 5), (2.6, 4)),
    "4,8,64,128": ((1.0, 1.0), (1.2, 1.2), (1.2, 1.2)),
    "ragged": ((5, 10), (3, 5), (3, 5)),
}
RAGGED = Shape(200, 16, 64, 64)
_SAMPLE = 0.02  # seconds: what is shorter is called several times in a sample

Work = Callable[[], Any]


class Packed(torch.nn.Module):
    """A layer of torch on a padded batch with lengths, through its packed sequences."""

    def __init__(self, layer: torch.nn.Module, lengths: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.lengths = layer, lengths

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        packed = pack_padded_sequence(x, self.lengths, enforce_sorted=False)
        output, final = self.layer(packed)
        return pad_packed_sequence(output, total_length=len(x))[0], final


class WithLengths(torch.nn.Module):
    """A layer of ours on the same."""

    def __init__(self, layer: torch.nn.Module, lengths: torch.Tensor) -> None:
        super().__init__()
        self.layer, self.lengths = layer, lengths

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x, lengths=self.lengths)


def sides(name: str, cell: str, mode: str) -> tuple[dict[str, Work], str]:
    """What is timed, ours first, and the backend that "auto" takes."""
    torch.manual_seed(0)
    shape = RAGGED if name == "ragged" else Shape.parse(name)
    theirs, ours = layers(cell, shape.D, shape.H)
    x = torch.randn(shape.T, shape.B, shape.D, requires_grad=True)
    given = torch.randn(shape.T, shape.B, shape.H)
    options: dict[str, Any] = {}
    pair: list[torch.nn.Module] = [ours, theirs]
    if name == "ragged":
        lengths = torch.linspace(shape.T / 2, shape.T, shape.B).round().long()[torch.randperm(shape.B)]
        pair, options = [WithLengths(ours, lengths), Packed(theirs, lengths)], {"lengths": lengths}
    found = dict(zip(("cpu", "torch"), (works(each, x, given)[mode] for each in pair), strict=True))
    # Threads of onnxruntime's wait in a busy loop on the cores that the others are to have.
    is_alone = torch.get_num_threads() == 1
    if mode == "infer" and name != "ragged" and is_alone and onnx.version():
        runner = onnx.session(theirs, 1)
        states = tuple(torch.zeros(1, shape.B, shape.H) for _ in ours.cell.states)
        found["onnx"] = onnx.inference(runner, Batch(x, states, (), torch.tensor([])))
    first = [
        result if isinstance(result, tuple) else (result,) for result in (found["cpu"](), found["torch"]())
    ]
    for own, other in zip(*first, strict=True):
        torch.testing.assert_close(own, other, atol=1e-3 * float(other.abs().max()), rtol=1e-3)
    ours.backend = "auto"
    with torch.set_grad_enabled(mode == "train"):
        chosen = cellwise.explain(ours, x, **options).chosen
    ours.backend = "cpu"
    return found, chosen


def timed(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of a call of each, round by round, in turns that go there and back."""

    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def seconds(work: Work, calls: int) -> float:
        start = clock()
        for _ in range(calls):
            work()
        return (clock() - start) / calls

    calls = {name: max(1, round(_SAMPLE / max(seconds(work, 1), 1e-6))) for name, work in works.items()}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works)[:: -1 if number % 2 else 1]:
            taken[name].append(seconds(works[name], calls[name]))
    return taken


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    for name in arguments.shapes:
        for place, cell in enumerate(CELLS):
            if cell not in arguments.cells.split(","):
                continue
            for mode in arguments.modes.split(","):
                works, chosen = sides(name, cell, mode)
                taken = timed(works, arguments.rounds)
                best = {side: min(seconds) for side, seconds in taken.items()}
                ratio, over = best["torch"] / best["cpu"], spread(speedups(taken["cpu"], taken["torch"]))
                floor = FLOORS[name][place][MODES.index(mode)] if name in FLOORS else None
                asked = "" if floor is None else f"floor {floor:5.2f} {'met' if ratio >= floor else 'MISSED'}"
                beside = f"onnx {best['onnx'] / best['cpu']:.2f}" if "onnx" in best else ""
                yield (
                    f"{name:16}{cell:9}{mode:6}{best['cpu'] * 1e3:9.3f} ms {ratio:6.2f} "
                    f"({over.low:.2f} to {over.high:.2f})  {asked:19} auto: {chosen:7} {beside}"
                ).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=list(FLOORS), metavar="T,B,D,H|ragged")
    parser.add_argument("--cells", default=",".join(CELLS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for line in lines(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
