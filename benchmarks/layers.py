"""The compiled kernels beside torch.nn, or, for cells that torch has no operator for, beside a loop in torch.

    python benchmarks/layers.py [--cells gru,lstm,rnn,lstm-peephole] [--shapes 100,64,256,256 ...] [--repeats 9]

It is `cellwise bench CELL ... --modes forward,train` without files: `cellwise.bench` is the code of both, and says what
is compared and how. Both sides alternate in one process, on the same weights and input, in float32; a shape whose
results differ is not timed. Exit status 1 if there was one.
"""

from __future__ import annotations

import argparse
import sys

import torch

from cellwise import cells
from cellwise.bench import machine, peak, report
from cellwise.bench.measure import Row, rows
from cellwise.bench.settings import SHAPES, Settings, Shape
from cellwise.errors import CellwiseError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", default="gru,rnn,lstm,gru-reset-before,lstm-peephole,mingru,indrnn")
    parser.add_argument("--shapes", nargs="+", default=list(map(str, SHAPES)), metavar="T,B,D,H")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        found = _measured(arguments)
    except CellwiseError as error:
        print(f"layers.py: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(1 if any(row.mismatch for row in found) else 0)


def _measured(arguments: argparse.Namespace) -> list[Row]:
    settings = Settings(
        {name: cells.get(name) for name in arguments.cells.split(",")},
        tuple(map(Shape.parse, arguments.shapes)),
        ("forward", "train"),
        arguments.repeats,
        seconds=float("inf"),  # the repeats alone decide
    )
    print(machine.one_line(machine.describe()))
    top = peak.measure()
    print(report.peak_line(top), report.HEADER, sep="\n")
    found = []
    for row in rows(settings):
        found.append(row)
        print("\n".join(report.row_lines(row, top)), flush=True)
    print("", *report.summary(found), sep="\n")
    return found


if __name__ == "__main__":
    main()
