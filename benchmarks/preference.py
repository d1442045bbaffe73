"""Measure torch's operator beside the kernels, call by call: what `backend="auto"` decides by.

    python benchmarks/preference.py                # kernels and torch's libraries as on a machine with AVX-512
    python benchmarks/preference.py --vectors 32   # as on one with AVX2
    python benchmarks/fit_preference.py            # then: the table that is shipped

On a processor with AVX-512 BF16 and without AMX, the same for bfloat16, whose table is one of its own:

    python benchmarks/preference.py --dtypes bfloat16 --out benchmarks/preference_rows_bfloat16.jsonl
    python benchmarks/fit_preference.py benchmarks/preference_rows_bfloat16.jsonl \
        --out src/cellwise/backends/preference_table_bfloat16.json

Each call becomes a line of preference_rows.jsonl beside this file: its shape, and the seconds of torch.nn's layer and
of the same layer on the kernels, in inference, in a forward pass that records for a backward pass, and in a training
step. What has a line is not measured again; `--like` a file with the lines that were taken out measures those anew.
Both sides take turns (A B B A) in one process on the same weights and input; results are compared first; the fastest
of the samples is kept, which other processes disturbed least. One thread is used, and its processor time counted; with
`--threads` as many, by the clock, on a machine that should be quiet:

    python benchmarks/preference.py --threads 2 --dtypes float32 --out benchmarks/preference_rows_two_threads.jsonl
    python benchmarks/preference_losses.py benchmarks/preference_rows_two_threads.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROWS = Path(__file__).with_name("preference_rows.jsonl")

# What is asked about most: the shapes of `cellwise bench`, single steps, batches of text, speech and series.
NAMED = (
    (100, 16, 64, 128), (100, 64, 128, 128), (100, 64, 256, 256), (35, 20, 650, 650), (784, 64, 1, 128),
    (50, 256, 32, 32), (100, 1, 64, 128), (1, 1, 64, 256), (1, 8, 64, 256), (1, 1, 16, 32), (1, 1, 32, 32),
    (200, 1, 256, 256), (200, 1, 512, 256), (200, 1, 1024, 256), (200, 16, 64, 64), (200, 32, 37, 64),
    (4, 8, 64, 128), (24, 32, 1, 64), (30, 32, 300, 128), (2, 1, 64, 64), (50, 32, 64, 128), (100, 32, 128, 256),
    (50, 64, 256, 256), (100, 128, 64, 64), (200, 64, 32, 64), (64, 64, 128, 256), (128, 32, 64, 64),
    (35, 40, 200, 200), (256, 32, 80, 128), (48, 128, 16, 128), (1, 256, 4, 256),
    (200, 1, 512, 512), (100, 2, 512, 256), (64, 4, 1024, 512), (100, 64, 512, 512),
)  # fmt: skip
STEPS = (1, 2, 3, 5, 8, 16, 32, 64, 100, 200, 400, 784)
ROWS_OF_A_BATCH = (1, 2, 3, 4, 6, 8, 12, 16, 20, 32, 64, 128, 256)
INPUTS = (1, 4, 16, 37, 64, 128, 256, 512, 1024)
HIDDEN = (8, 16, 32, 50, 64, 100, 128, 200, 256, 400, 512, 650, 1024)
_SAMPLE = 0.001  # seconds: what is shorter is called several times in a sample
MOST_WORK = 6e7  # multiply-adds of one gate in a call: a training step of some hundredths of a second


def shapes(count: int, seed: int, most: float) -> list[tuple[int, int, int, int]]:
    """The named shapes, then as many drawn ones, spread evenly over the logarithms of their sizes."""
    draw, found = random.Random(seed), [shape for shape in NAMED if work(*shape) <= most * 15]
    while len(found) < count:
        shape = tuple(draw.choice(each) for each in (STEPS, ROWS_OF_A_BATCH, INPUTS, HIDDEN))
        if work(*shape) <= most and shape not in found:
            found.append(shape)
    return found[:count]


def work(T: int, B: int, D: int, H: int) -> float:
    return T * B * H * (D + H)


def restrict(vectors: int) -> None:
    """Make the kernels and torch's libraries use vectors of so many bytes at most; before either is imported."""
    os.environ["CELLWISE_VECTOR_BYTES"] = str(vectors)
    if vectors == 32:
        os.environ |= {
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2",
        }


FAMILIES = {"lstm": 100, "gru": 80, "rnn_tanh": 70, "lstm_projected": 60}  # and how many shapes of each


def layers(family: str, D: int, H: int, **options: Any) -> tuple[Any, Any]:
    """torch.nn's layer, and ours on the kernels with the same weights."""
    import torch

    import cellwise

    name, _, kind = family.upper().partition("_")
    if kind == "PROJECTED":
        options |= {"proj_size": max(1, H // 2)}
    elif kind:
        options |= {"nonlinearity": kind.lower()}
    theirs = getattr(torch.nn, name)(D, H, **options)
    ours = getattr(cellwise, name)(D, H, backend="cpu", **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def works(layer: Any, x: Any, given: Any) -> dict[str, Callable[[], Any]]:
    """What is timed: inference, the forward pass of training, and all of training."""
    import torch

    weights = [x if not hasattr(x, "batch_sizes") else x.data, *layer.parameters()]

    def infer() -> Any:
        with torch.no_grad():
            return layer(x)[0]

    def record() -> Any:
        return layer(x)[0]

    def train() -> Any:
        output = layer(x)[0]
        output = output if torch.is_tensor(output) else output.data
        return torch.autograd.grad(output, weights, given)

    return {"infer": infer, "record": record, "train": train}


def clock_of(threads: int) -> Callable[[], float]:
    return time.process_time if threads == 1 else time.perf_counter


def samples(works: list[Callable[[], Any]], clock: Callable[[], float], seconds: float) -> list[list[float]]:
    """The seconds of each of several works, which take turns, round by round."""
    calls = []
    for each in works:
        each()
        start = clock()
        each()
        calls.append(max(1, round(_SAMPLE / max(clock() - start, 1e-6))))
    taken: list[list[float]] = [[] for _ in works]
    turns = [*range(len(works))]
    begin, rounds = clock(), 0
    while rounds < 3 or (rounds < 25 and clock() - begin < seconds):
        for which in turns if rounds % 2 == 0 else reversed(turns):
            start = clock()
            for _ in range(calls[which]):
                works[which]()
            taken[which].append((clock() - start) / calls[which])
        rounds += 1
    return taken


def ragged_lengths(T: int, B: int) -> Any:
    """(B,) lengths spread evenly from T down to 1."""
    import torch

    return -(-(2 * torch.arange(B).flip(0) + 1) * T // (2 * B))


def batch(T: int, B: int, D: int, ragged: bool, dtype: Any) -> Any:
    """A dense batch, or packed rows of lengths spread evenly from 1 to T."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence

    torch.manual_seed(0)
    x = torch.randn(T, B, D, dtype=dtype)
    if not ragged:
        return x.requires_grad_()
    packed = pack_padded_sequence(x, ragged_lengths(T, B))
    return packed._replace(data=packed.data.clone().requires_grad_())


def row(
    family: str, shape: tuple[int, int, int, int], ragged: bool, dtype: Any, seconds: float, threads: int
) -> Any:
    import torch

    T, B, D, H = shape
    pair = [each.to(dtype) for each in layers(family, D, H)]
    x = batch(T, B, D, ragged, dtype)
    with torch.no_grad():
        outputs = [layer(x)[0] for layer in pair]
    outputs = [each if torch.is_tensor(each) else each.data for each in outputs]
    near = 5e-2 if dtype is torch.bfloat16 else 1e-4
    torch.testing.assert_close(*outputs, atol=near, rtol=near)
    given = torch.randn_like(outputs[0])
    both = [works(layer, x, given) for layer in pair]
    found = {"family": family, "ragged": ragged, "dtype": str(dtype).removeprefix("torch."), "shape": shape}
    for name in both[0]:
        taken = samples([side[name] for side in both], clock_of(threads), seconds)
        # The fastest is the one that other processes disturbed least.
        found[name] = [float(f"{min(each):.4g}") for each in taken]
    return found


# Whether rows are ragged, dtype, and what part of the shapes and of the most work.
_KINDS = (
    (False, "float32", 1, 1),
    (True, "float32", 0.5, 0.25),
    (False, "float64", 0.5, 0.125),
    (True, "float64", 0.4, 0.125),
    (False, "bfloat16", 0.5, 0.25),
    (True, "bfloat16", 0.4, 0.125),
)


def jobs(count: int) -> Iterator[tuple[tuple[int, int, int, int], bool, str]]:
    """(shape, whether rows are ragged, dtype) of what is measured."""
    for ragged, dtype, part, most in _KINDS:
        for shape in shapes(round(count * part), len(dtype) + ragged, MOST_WORK * most):
            if not ragged or (shape[0] > 1 and shape[1] > 1):
                yield shape, ragged, dtype


def calls(arguments: argparse.Namespace) -> Iterator[tuple[str, tuple[int, int, int, int], bool, str]]:
    """(family, shape, whether rows are ragged, dtype) of what is measured."""
    if arguments.like:
        for each in map(json.loads, arguments.like.read_text().splitlines()):
            if each["vectors"] == arguments.vectors:
                yield each["family"], tuple(each["shape"]), each["ragged"], each["dtype"]
        return
    for family in FAMILIES:
        for job in jobs(round(FAMILIES[family] * arguments.part)):
            yield family, *job


def measure(arguments: argparse.Namespace) -> None:
    restrict(arguments.vectors)
    import torch

    torch.set_num_threads(arguments.threads)
    done = arguments.out.read_text() if arguments.out.exists() else ""
    names = ("vectors", "family", "shape", "ragged", "dtype")
    known = [[each[name] for name in names] for each in map(json.loads, done.splitlines())]
    for family, shape, ragged, dtype in calls(arguments):
        if (
            family not in arguments.families.split(",")
            or dtype not in arguments.dtypes.split(",")
            or [arguments.vectors, family, list(shape), ragged, dtype] in known
        ):
            continue
        found = row(family, shape, ragged, getattr(torch, dtype), arguments.seconds, arguments.threads)
        found["vectors"] = arguments.vectors
        if arguments.threads > 1:
            found["threads"] = arguments.threads
        with arguments.out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        ratios = " ".join(
            f"{name} {found[name][0] / found[name][1]:.2f}" for name in ("infer", "record", "train")
        )
        print(family, shape, "ragged" if ragged else "dense", dtype, ratios, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=int, default=64)
    parser.add_argument("--part", type=float, default=1, help="Of the shapes.")
    parser.add_argument(
        "--seconds", type=float, default=0.04, help="For each side and mode, beyond three rounds."
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--dtypes", default="float32,float64")
    parser.add_argument(
        "--like", type=Path, help="Of the calls that this file has lines of, in place of the drawn."
    )
    parser.add_argument("--out", type=Path, default=ROWS)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
