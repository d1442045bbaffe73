"""Peak memory of a training step, and growth over many calls, each measured in a fresh process.

A probe is one such process: it builds the layers, compiles on a tiny batch, notes the resident memory, does its work
and notes it again. On Linux the peak is the kernel's own mark (VmHWM, reset before the work); elsewhere it is
`ru_maxrss`, which cannot be reset and so misses what fits below an earlier peak. The record says which it was.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cellwise.bench.comparisons import tiny
from cellwise.bench.implementations import AGAIN, LOOP, OURS, implementations_of, infer, train
from cellwise.bench.settings import BenchError, Shape
from cellwise.cells.base import Cell

KERNEL_MARK, MAXRSS = "VmHWM", "ru_maxrss"
_SMALL = Shape(5, 2, 8, 16)
_WARM_UP = 200


@dataclass(frozen=True)
class Probe:
    """What one process measured. `kind` "peak": bytes above those held before, at the height of the first training
    step of `shape`; "growth": bytes that `calls` small forward and training calls left behind."""

    cell: str
    side: str
    kind: str
    shape: Shape
    calls: int
    bytes: int
    method: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# (words of a probe) -> the command that runs it in a fresh process; see `run_probe`
Command = Callable[[Sequence[str]], Sequence[str]]


def probes(name: str, cell: Cell, shapes: Sequence[Shape], calls: int, command: Command) -> Iterator[Probe]:
    """Measure a cell: the peak on each shape, ours with and without a tape and the other side, then growth.

    Args:
        calls: how many for growth; a Python loop's growth is not measured, for the time that would take.
        command: makes the command line of a process that calls `run_probe` with the given words and prints what
            that returns.

    Raises:
        BenchError: a probe failed.
    """
    other = implementations_of(cell, Shape(1, 1, 1, 1)).their_name
    wanted = [("peak", side, shape, 1) for shape in shapes for side in (OURS, AGAIN, other)]
    wanted += [("growth", side, _SMALL, calls) for side in (OURS, other) if side != LOOP]
    for kind, side, shape, number in wanted:
        done = subprocess.run(
            command([kind, side, str(shape), str(number)]), capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise BenchError(
                f"The process that measures the {kind} memory of {name} at {shape} failed: {last}"
            )
        found = json.loads(done.stdout.splitlines()[-1])
        yield Probe(name, side, kind, shape, number, found["bytes"], found["method"])


def run_probe(cell: Cell, words: Sequence[str], dtype: torch.dtype = torch.float32) -> str:
    """What a probe's process does: measure, and give back a line of JSON.

    Raises:
        BenchError: the words are not kind, side, shape and number of calls.
    """
    if len(words) != 4 or words[0] not in ("peak", "growth"):
        raise BenchError(
            f"A probe is 'peak' or 'growth', a side, a shape and a number; got '{' '.join(words)}'."
        )
    kind, side, text, number = words
    implementations = implementations_of(cell, Shape.parse(text), dtype=dtype)
    layer, small = implementations.layer_of(side), tiny(implementations).batch
    if kind == "peak":
        found, method = _peak(lambda: train(layer, small), lambda: train(layer, implementations.batch))
    else:
        found, method = _growth(
            lambda: (train(layer, small), infer(layer, implementations.batch)), int(number)
        )
    return json.dumps({"bytes": found, "method": method})


def _peak(warm_up: Callable[[], object], work: Callable[[], object]) -> tuple[int, str]:
    warm_up()
    warm_up()
    gc.collect()
    method = _reset_peak()
    before = _resident() if method == KERNEL_MARK else _maxrss()
    kept = work()  # the gradients are there at the height
    after = _status("VmHWM") if method == KERNEL_MARK else _maxrss()
    del kept
    return max(0, after - before), method


def _growth(work: Callable[[], object], calls: int) -> tuple[int, str]:
    for _ in range(_WARM_UP):
        work()
    gc.collect()
    before = _resident()
    for _ in range(calls):
        work()
    gc.collect()
    return _resident() - before, "VmRSS" if Path("/proc/self/status").is_file() else MAXRSS


def _reset_peak() -> str:
    """Set the kernel's mark of the peak to what is resident now, where that can be done; the method to read it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return MAXRSS
    return KERNEL_MARK


def _resident() -> int:
    return _status("VmRSS") if Path("/proc/self/status").is_file() else _maxrss()


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"This system's /proc/self/status has no {name}.")


def _maxrss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
