"""Runs a benchmark for a GPU on a machine without one, so that no mistake of Python's waits for a device.

    python benchmarks/gpu_rehearsal.py gpu --cell lstm --rounds 1
    python benchmarks/gpu_rehearsal.py cellwise bench lstm --device cuda --tune --shapes 3,2,16,16

Tensors lie on the CPU, torch compiles nothing, the emulated kernels of `tests/gpu` stand for the backend "cuda",
and shapes are tiny. What is printed has the form of the real thing; its numbers mean nothing. g++ is needed.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "tests" / "gpu")]

from emulated import Emulated  # noqa: E402  it lies with the tests

from cellwise.backends import registry  # noqa: E402
from cellwise.backends.compiled import compiler  # noqa: E402
from cellwise.backends.reference.loop import run_direction  # noqa: E402
from cellwise.bench import peak  # noqa: E402

# What scripts have of these names becomes tiny.
TINY = {
    "SHAPES": ((3, 2, 16),),
    "GRID": ((2, 16),),
    "LENGTHS": (2, 3),
    "COMPARED": 3,
    "BATCH": 2,
    "_CALLS": 1,
    "device_time": lambda run: run() and 1.0,
    "STREAM_BATCHES": (1, 2),
    "_ROUNDS": 1,
}


class OnTheCpu(TorchFunctionMode):
    """Whoever asks for a GPU is given the CPU."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        def moved(value: Any) -> Any:
            is_gpu = value == "cuda" if isinstance(value, str) else isinstance(value, torch.device)
            return "cpu" if is_gpu else value

        given = {name: moved(value) for name, value in (kwargs or {}).items()}
        return function(*[moved(value) for value in args], **given)


class Moment:
    """Stands for an event of the device."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: object = None) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: Moment) -> float:
        return (other.at - self.at) * 1e3 + 1e-6


class Recorded:
    """Stands for a CUDA graph, of whose work nothing is done again."""

    def replay(self) -> None:
        return


class Queue:
    """Stands for a stream of the device's."""

    def wait_stream(self, other: object) -> None:
        return


class Rehearsed(Emulated):
    name = "cuda"
    summary = "kernels for a GPU, emulated for a rehearsal"


@contextlib.contextmanager
def rehearsing() -> Iterator[None]:
    """While this lasts torch has a GPU, whose kernels are emulated."""
    backend = Rehearsed(run_direction)
    others = tuple(each for each in registry.BACKENDS if each.name != "cuda")
    with contextlib.ExitStack() as stack:
        for name, value in {
            "is_available": lambda: True,
            "get_device_name": lambda *_: "a rehearsal",
            "get_device_capability": lambda *_: (9, 0),
            "get_device_properties": lambda *_: SimpleNamespace(
                name="a rehearsal", major=9, minor=0, multi_processor_count=6
            ),
            "current_device": lambda: 0,
            "_sleep": lambda _: None,
            "synchronize": lambda *_: None,
            "Event": Moment,
            "CUDAGraph": Recorded,
            "graph": contextlib.nullcontext,
            "Stream": Queue,
            "current_stream": Queue,
            "stream": contextlib.nullcontext,
        }.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch, "compile", lambda function: function))
        small = partial(peak.measure_cuda, runs=1, size=16)
        stack.enter_context(mock.patch.object(peak, "measure_cuda", small))
        stack.enter_context(mock.patch.object(registry, "BACKENDS", (backend, *others)))
        stack.enter_context(mock.patch.dict(compiler._LOADERS, {"cuda": backend.compiler}))
        stack.enter_context(OnTheCpu())
        yield


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    with rehearsing():
        name = sys.argv[1]
        script = importlib.import_module("cellwise.cli" if name == "cellwise" else Path(name).stem)
        for module in {script, *map(importlib.import_module, ("gpu", "cellwise.bench.tuning"))}:
            for name in TINY.keys() & vars(module).keys():
                setattr(module, name, TINY[name])
        sys.argv = sys.argv[1:]
        script.main()


if __name__ == "__main__":
    main()
