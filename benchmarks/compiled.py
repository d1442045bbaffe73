"""A layer under torch.compile beside itself without, and beside torch.nn with and without.

    python benchmarks/compiled.py [--cells gru,lstm] [--shapes 100,16,64,128 ...] [--repeats 25] [--dynamic]

All four alternate in one process (`cellwise.bench`), on the same weights and input, in float32; a shape whose results
differ is not timed. Inductor is asked for: cellwise in one graph, torch.nn as far as torch compiles it, which is not at
all: Dynamo refuses its recurrent layers and leaves them as they are. Exit status 1 if results differed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import torch

from cellwise import cells
from cellwise.bench import machine
from cellwise.bench.clock import interleaved
from cellwise.bench.comparisons import Candidate, Comparison
from cellwise.bench.implementations import Implementations, Results, implementations_of, infer, train
from cellwise.bench.settings import Settings, Shape
from cellwise.bench.speedup import speedups, spread, verdict
from cellwise.errors import CellwiseError

SHAPES = ("100,16,64,128", "100,64,256,256", "100,1,64,128", "10,1,64,128")
RUNS = {"forward": infer, "train": train}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", default="gru,lstm")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="T,B,D,H")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dynamic", action="store_true", help="compile for all sizes, dynamic=True")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        settings = Settings(
            {name: cells.get(name) for name in arguments.cells.split(",")},
            tuple(map(Shape.parse, arguments.shapes)),
            tuple(RUNS),
            arguments.repeats,
            seconds=float("inf"),  # the repeats alone decide
        )
    except CellwiseError as error:
        print(f"compiled.py: {error}", file=sys.stderr)
        sys.exit(2)
    print(machine.one_line(machine.describe()))
    print("ratio: the other side's time over that of the compiled layer, in pairs of neighbouring runs")
    wrong = False
    for name, shape, modes in settings.jobs():
        implementations = implementations_of(settings.cells[name], shape)
        for mode in modes:
            # Each row's programs are its own: Dynamo keeps eight for a function.
            torch.compiler.reset()
            comparison = comparison_of(mode, implementations, True if arguments.dynamic else None)
            mismatch = comparison.mismatch()
            wrong = wrong or mismatch is not None
            for line in [mismatch] if mismatch else timed(comparison, mode, settings.repeats):
                print(f"{name:<6}{shape!s:<16}{mode:<9}{line}", flush=True)
    sys.exit(1 if wrong else 0)


def comparison_of(mode: str, implementations: Implementations, dynamic: bool | None) -> Comparison:
    """The compiled layer first, then the same layer without, and torch's both ways."""
    layers: dict[str, Any] = {
        "compiled": torch.compile(implementations.ours, fullgraph=True, dynamic=dynamic),
        "cellwise": implementations.ours,
        implementations.their_name: implementations.theirs,
        f"{implementations.their_name} compiled": torch.compile(implementations.theirs, dynamic=dynamic),
    }
    candidates = tuple(_candidate(name, mode, layer, implementations) for name, layer in layers.items())
    return Comparison(candidates, flops=0)


def _candidate(name: str, mode: str, layer: Any, implementations: Implementations) -> Candidate:
    def work() -> Results:
        found = RUNS[mode](layer, implementations.batch)
        # A compiled module puts its own name before those of its parameters.
        return {name.replace("_orig_mod.", ""): value for name, value in found.items()}

    return Candidate(name, work, work)


def timed(comparison: Comparison, mode: str, repeats: int) -> Iterator[str]:
    """A line for each side that the compiled layer stands beside."""
    ours, *others = interleaved(comparison.candidates, mode == "train", repeats, float("inf"))
    own = spread(ours.seconds).median
    for other in others:
        ratio = spread(speedups(ours.seconds, other.seconds))
        yield (
            f"{1e3 * own:9.3f} ms  beside {other.name:<18}{1e3 * spread(other.seconds).median:9.3f} ms  "
            f"ratio {ratio.median:5.2f}  quartiles {ratio.low:5.2f} to {ratio.high:5.2f}  {verdict(ratio)}"
        )


if __name__ == "__main__":
    main()
