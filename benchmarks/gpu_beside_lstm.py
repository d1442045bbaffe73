"""Cells on a GPU beside the LSTM of the same size, in one process and turn by turn; torch's LSTM and GRU beside both.

    python benchmarks/gpu_beside_lstm.py
    python benchmarks/gpu_beside_lstm.py --dtype float32 --hidden 64 --cell lstm gru

Milliseconds, forward, and forward with backward; D = H. A call: medians of CUDA events, autograd and the host included.
On the device: what its kernels take together, as the profiler has it, for short calls wait for the host. Torch's own
runs in float16 where ours is in 16 bits.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from gpu import DTYPES, SHAPES, STANDARD, both_ways, prepare, timed
from gpu_own_cell import LeakyLSTM
from torch import Tensor, nn

import cellwise

OWN = {"three products": LeakyLSTM}
CELLS = ("lstm", "gru", "lstm-peephole", "gru-reset-before", *OWN)
_PROFILED = 5  # calls of which the device's time is the mean


def device_time(run: Callable[[], Any]) -> float:
    """Milliseconds that a call's kernels take on the device."""
    run()
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(_PROFILED):
            run()
        torch.cuda.synchronize()
    found = [each for each in profile.events() if each.device_type.name == "CUDA"]
    return sum(each.time_range.elapsed_us() for each in found) / _PROFILED / 1e3


def layers_of(cells: list[str], H: int, dtype: torch.dtype) -> dict[str, tuple[nn.Module, torch.dtype]]:
    """Ours by the name of the cell, then torch's."""
    torch.manual_seed(0)
    found: dict[str, tuple[nn.Module, torch.dtype]] = {}
    for cell in cells:
        layer = cellwise.Recurrent(OWN.get(cell, cell), H, H, backend="cuda", device="cuda", dtype=dtype)
        found[cell] = layer, dtype
    other = torch.float16 if dtype.itemsize == 2 else dtype
    for cell in cells:
        if cell in STANDARD:
            found[f"torch's {cell}"] = STANDARD[cell](H, H).to("cuda", other), other
    return found


def rows(cells: list[str], name: str, shape: tuple[int, int, int], rounds: int) -> list[str]:
    """A line for each cell."""
    T, B, H = shape
    prepare(name)
    torch.backends.cudnn.allow_tf32 = name != "float32"
    layers = layers_of(cells, H, DTYPES[name])
    runs: list[Callable[[], Any]] = []
    for layer, dtype in layers.values():
        x = torch.randn(T, B, H, device="cuda", dtype=dtype, requires_grad=True)
        at_output: Tensor = torch.randn(T, B, H, device="cuda", dtype=dtype)
        runs += both_ways(layer, x, at_output)
    calls, devices = timed(runs, rounds), [device_time(run) for run in runs]
    found = []
    for place, cell in enumerate(layers):
        call, device = calls[2 * place : 2 * place + 2], devices[2 * place : 2 * place + 2]
        times = "  ".join(f"{each:>7.3f}" for each in (*call, *device))
        over = "  ".join(
            f"{each / first if first else float('nan'):>5.2f}"
            for each, first in zip((*call, *device), (*calls[:2], *devices[:2]), strict=True)
        )
        found.append(f"{cell:<17} {name:<8} {T:>5},{B:>4},{H:>5}  {times}  {over}")
    return found


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--cell", nargs="+", default=list(CELLS), choices=CELLS, help="the first is compared with"
    )
    options.add_argument("--dtype", nargs="+", default=["bfloat16"], choices=DTYPES)
    options.add_argument(
        "--hidden", nargs="+", type=int, default=[shape[2] for shape in SHAPES if shape[2] <= 1024]
    )
    options.add_argument("--rounds", type=int, default=5, help="of which medians are taken")
    given = options.parse_args()
    print(torch.cuda.get_device_name(0), "torch", torch.__version__)
    print(f"over: of {given.cell[0]}'s time")
    print(
        "cell              dtype        T,   B,    H     call     both   device     both   over   both   over   both"
    )
    for name in given.dtype:
        for shape in SHAPES:
            if shape[2] in given.hidden:
                for line in rows(given.cell, name, shape, given.rounds):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
