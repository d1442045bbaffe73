"""What "auto" takes on CUDA tensors where torch's operator and the kernels can both run a call: the faster one.

`measured_h100.csv` has milliseconds of single layers at two lengths, ours and torch's, from which a call's own time and
that of a step follow: `python benchmarks/gpu.py --cell lstm gru --dtype bfloat16 float16 float32 tf32 --table FILE`, on
an H100; float32 and TF32 at H 64 and 512 on an H200, the same processor, since they have become faster. A call is
judged by the measured layer that is nearest to it. For other GPUs nothing was measured, and torch's operator stays; so
it does inside compiled graphs, and under autocast.
"""

from __future__ import annotations

import csv
import math
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import torch

from cellwise.backends.base import CallContext, LayerSpec, Workload
from cellwise.backends.precision import allows_tf32
from cellwise.backends.preference import Preference, family_of

TABLE = "measured_h100.csv"
_CAPABILITY = (9, 0)
# The kernels are to be faster by so much: measured calls differ by up to a fifth from run to run.
_MARGIN = 1.2
# Of a measured layer in batch and H together, as a factor: what is further away was not measured.
_NEAR = 4.0
_LENGTHS = (32, 256)


class Measured(NamedTuple):
    """Milliseconds of a layer at the lengths of `_LENGTHS`."""

    batch: int
    hidden: int
    ours: tuple[float, float]
    torchs: tuple[float, float]


def preferred_on_cuda(
    stack: LayerSpec, context: CallContext, workload: Workload | None, capability: tuple[int, int]
) -> Preference | None:
    """The backend for a call; None where nothing was measured.

    Args:
        capability: the device's compute capability, as torch tells it.
    """
    family = family_of(stack)
    if (
        workload is None
        or context.traced
        or context.autocast
        or capability != _CAPABILITY
        or not workload.rows
    ):
        return None
    mode = "both" if workload.recorded else "forward"
    near = _nearest(
        _table().get((family or "", _numbers(context.dtype), mode), ()), workload.batch, stack.hidden_size
    )
    if near is None:
        return None
    ratio = _at(near.torchs, workload.steps) / _at(near.ours, workload.steps)
    layer = f"T={workload.steps}, B={workload.batch}, H={stack.hidden_size} in {_MODES[mode]}"
    if ratio > _MARGIN:
        said, name = f"{ratio:.1f} times as fast as torch's operator", "cuda"
    elif ratio < 1:
        said, name = f"{1 / ratio:.1f} times as fast as the kernels", "native"
    else:
        said, name = "about as fast as the kernels", "native"
    return Preference(name, f"by measurements on an H100 and an H200 {said} for {layer}")


_MODES = {"both": "training", "forward": "inference"}


def _numbers(dtype: torch.dtype) -> str:
    if dtype is torch.float32 and allows_tf32():
        return "tf32"
    return str(dtype).removeprefix("torch.")


def _at(times: tuple[float, float], steps: int) -> float:
    """The time at a length, on the line through two."""
    (short, long), (one, other) = _LENGTHS, times
    slope = max(0.0, other - one) / (long - short)
    return max(0.5 * one, one + slope * (steps - short))


def _nearest(rows: tuple[Measured, ...], batch: int, hidden: int) -> Measured | None:
    def distance(row: Measured) -> float:
        return abs(math.log(row.batch / max(1, batch))) + abs(math.log(row.hidden / hidden))

    best = min(rows, key=distance, default=None)
    return best if best is not None and distance(best) <= math.log(_NEAR) else None


@cache
def _table() -> dict[tuple[str, str, str], tuple[Measured, ...]]:
    """By the cell's family, the numbers and the mode."""
    found: dict[tuple[str, str, str], list[Measured]] = {}
    text = files("cellwise.backends").joinpath(TABLE).read_text()
    for row in csv.DictReader(text.splitlines()):
        ours, torchs = (
            (float(row[f"{who}_{_LENGTHS[0]}"]), float(row[f"{who}_{_LENGTHS[1]}"]))
            for who in ("ours", "torch")
        )
        measured = Measured(int(row["batch"]), int(row["hidden"]), ours, torchs)
        found.setdefault((row["cell"], row["numbers"], row["mode"]), []).append(measured)
    return {key: tuple(rows) for key, rows in found.items()}
