"""How far the compiled kernels' results in float32 lie from float64, beside torch.nn's, by T, B, D and H.

    python benchmarks/accuracy.py [--cells rnn,lstm,gru,own] [--shapes 20,4,64,1024 ...] [--draws 3] [--backend cpu]

For each shape the same weights and inputs are run forward and backward three times: in float64, in float32 by torch.nn
and in float32 by cellwise. An error is the Euclidean distance to the float64 result over that result's length; of several
tensors (all weights, all biases) it is the worst one's, and of several draws of the numbers the median. In brackets stands
how many times torch's it is. Beside a cell that torch.nn does not have (`own`, with a Vector and a Scalar) stands the
reference backend in float32. Exit status 1 if an error is more than twice the other's.

T = 20,000 with the cell `own` takes a minute, since the reference is a loop in Python.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Any

import torch
from torch import Tensor, nn

import cellwise
from cellwise import Cell, Scalar, Vector, sigmoid, tanh
from cellwise.testing import Arguments, results

TORCHS: dict[str, type[nn.Module]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
SHAPES = (
    "10,4,16,16",
    "100,4,16,16",
    "1000,4,16,16",
    "10000,4,16,16",
    "20,32,64,64",
    "20,32,64,256",
    "20,32,64,1024",
    "20,4,64,1024",
    "20,1,64,1024",
    "20,32,4096,64",
    "50,2000,8,16",
    "1000,500,8,16",
    "20000,25,8,16",
)
GROUPS = {
    "output": ("output",),
    "final": ("final ",),
    "grad x": ("gradient of x",),
    "grad initial": ("gradient of initial ",),
    "grad weights": ("gradient of weight_",),
    "grad biases": ("gradient of bias_",),
    "grad own": ("gradient of own_",),
}


class Own(Cell):
    """A cell that torch.nn does not have, with parameters of its own."""

    gates = ("z", "n")
    own_v = Vector((0.5, 1.5))
    own_k = Scalar(0.7)

    def step(self, x, h):
        z = sigmoid(x.z + h.z + self.own_v * h)
        return (1 - z) * tanh(x.n + self.own_k * h.n) + z * h


def layers_of(name: str, inputs: int, hidden: int, backend: str) -> tuple[nn.Module, nn.Module]:
    """The layer to compare with, and ours, with the same weights."""
    cell: Any = Own if name == "own" else name
    ours = cellwise.Recurrent(cell, inputs, hidden, backend=backend)
    other: nn.Module
    if name in TORCHS:
        other = TORCHS[name](inputs, hidden)
        ours.load_state_dict(other.state_dict())
    else:
        other = cellwise.Recurrent(cell, inputs, hidden, backend="reference")
        other.load_state_dict(ours.state_dict())
    return other, ours


def errors(
    name: str, shape: tuple[int, int, int, int], seed: int, backend: str
) -> dict[str, tuple[float, float]]:
    """For each result by name: the other's error and ours."""
    steps, batch, inputs, hidden = shape
    torch.manual_seed(seed)
    other, ours = layers_of(name, inputs, hidden, backend)
    x = torch.randn(steps, batch, inputs)
    state = tuple(torch.randn(1, batch, hidden) for _ in range(2 if name == "lstm" else 1))
    in_float = Arguments(x, state if len(state) > 1 else state[0])
    wide = tuple(each.double() for each in state)
    in_double = Arguments(x.double(), wide if len(wide) > 1 else wide[0])
    found, others = results(ours, in_float), results(other, in_float)
    truth = results(other.double(), in_double)
    return {key: (distance(others[key], each), distance(found[key], each)) for key, each in truth.items()}


def distance(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm())


def row_of(name: str, shape: tuple[int, int, int, int], draws: int, backend: str) -> tuple[list[str], float]:
    """The words of a row of the table, and the worst ratio in it."""
    each = [errors(name, shape, seed, backend) for seed in range(draws)]
    middle = {
        key: tuple(statistics.median(draw[key][side] for draw in each) for side in (0, 1)) for key in each[0]
    }
    words, worst = [], 0.0
    for prefixes in GROUPS.values():
        found = [pair for key, pair in middle.items() if key.startswith(prefixes)]
        if not found:
            words.append("")
            continue
        other, ours = max(found, key=lambda pair: pair[1] / pair[0])
        worst = max(worst, ours / other)
        words.append(f"{ours:.1e} ({ours / other:.1f})")
    return words, worst


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", default="rnn,lstm,gru,own")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), metavar="T,B,D,H")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--backend", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}; error (times the other's)\n"
    )
    print(f"{'':6}{'T,B,D,H':>16}  " + "".join(f"{title:>15}" for title in GROUPS))
    worst = 0.0
    for shape in arguments.shapes:
        for name in arguments.cells.split(","):
            steps, batch, inputs, hidden = map(int, shape.split(","))
            words, ratio = row_of(name, (steps, batch, inputs, hidden), arguments.draws, arguments.backend)
            worst = max(worst, ratio)
            print(f"{name:6}{shape:>16}  " + "".join(f"{word:>15}" for word in words), flush=True)
    print(f"\nworst: {worst:.2f} times the other's error")
    sys.exit(worst > 2)


if __name__ == "__main__":
    main()
