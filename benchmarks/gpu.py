"""Layers on a GPU beside cuDNN, in one process and turn by turn: forward, and forward with backward.

    python benchmarks/gpu.py                          # LSTM, bfloat16 beside cuDNN in float16
    python benchmarks/gpu.py --dtype float32 tf32 --cell gru --hidden 64 256
    python benchmarks/gpu.py --table measured.csv     # what "auto" chooses by, at two lengths each

Times are medians of CUDA events in milliseconds, autograd included; D = H. Results are compared with float64 first.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import cellwise
from cellwise.errors import BackendError

SHAPES = (
    *((1024, 16, 768), (1024, 16, 64), (512, 64, 256), (256, 64, 512), (784, 128, 128), (128, 128, 1024)),
    *((256, 64, 1536), (256, 64, 2048)),
)
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "tf32": torch.float32,
    "float32": torch.float32,
}
# Batch and H of the table, and the lengths from which a call's own time and that of a step are told apart.
GRID = (
    *((16, 64), (128, 64), (128, 128), (16, 256), (64, 256), (256, 256)),
    *((16, 512), (64, 512), (256, 512), (16, 768), (16, 1024), (128, 1024)),
)
LENGTHS = (32, 256)
STANDARD = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def timed(runs: list[Callable[[], Any]], count: int) -> list[float]:
    """The median time of each, one after the other in every round."""
    for run in runs * 2:
        run()
    found: list[list[float]] = [[] for _ in runs]
    for _ in range(count):
        for place, run in enumerate(runs):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            found[place].append(start.elapsed_time(end))
    return [statistics.median(each) for each in found]


def both_ways(layer: nn.Module, x: Tensor, at_output: Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """A layer forward, and forward and backward."""
    sources = [x, *layer.parameters()]
    return (
        lambda: layer(x),
        lambda: torch.autograd.grad(layer(x)[0], sources, at_output),
    )


def made(cell: str, T: int, B: int, H: int, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """A layer of ours, its input and a gradient at its output."""
    torch.manual_seed(0)
    layer = cellwise.Recurrent(cell, H, H, backend="cuda", device="cuda", dtype=dtype)
    x = torch.randn(T, B, H, device="cuda", dtype=dtype, requires_grad=True)
    return layer, x, torch.randn(T, B, H, device="cuda", dtype=dtype)


def error_of(layer: Any, x: Tensor, steps: int = 16) -> float:
    """How far the outputs of some steps are from those in float64 with the same weights, relative."""
    exact = (
        cellwise.Recurrent(layer.cell, x.shape[2], layer.hidden_size, backend="reference")
        .to(x.device)
        .double()
    )
    exact.load_state_dict(layer.state_dict())
    with torch.no_grad():
        found, wanted = layer(x[:steps])[0], exact(x[:steps].double())[0]
    return ((found.double() - wanted).norm() / wanted.norm()).item()


def prepare(name: str) -> None:
    """Torch's settings for a kind of numbers. cuDNN computes in TF32 unless that is forbidden."""
    torch.set_float32_matmul_precision("highest" if name == "float32" else "high")


def measured(cell: str, name: str, T: int, B: int, H: int, other: torch.dtype, count: int) -> list[float]:
    """Times of ours forward and both ways, and of cuDNN's where there is one."""
    layer, x, at_output = made(cell, T, B, H, DTYPES[name])
    runs = [*both_ways(layer, x, at_output)]
    if cell in STANDARD:
        torchs = STANDARD[cell](H, H).to("cuda", other)
        y = x.detach().to(other).requires_grad_()
        runs += both_ways(torchs, y, at_output.to(other))
    return timed(runs, count)


def row(cell: str, name: str, shape: tuple[int, int, int], rounds: int) -> str:
    """A line of the table to read."""
    T, B, H = shape
    prepare(name)
    torch.backends.cudnn.allow_tf32 = name != "float32"
    layer, x, _ = made(cell, T, B, H, DTYPES[name])
    error = error_of(layer, x)
    other = torch.float16 if DTYPES[name].itemsize == 2 else torch.float32
    times = measured(cell, name, T, B, H, other, rounds)
    forward, both = times[:2]
    text = f"{cell:<16} {name:<8} {T:>5},{B:>4},{H:>5}  {forward:>7.3f} {both:>7.3f}"
    if len(times) > 2:
        text += f"  {times[2]:>7.3f} {times[3]:>7.3f}  {forward / times[2]:>5.2f} {both / times[3]:>5.2f}"
    return f"{text}  error {error:.1e}"


def table(cells: list[str], names: list[str], path: Path) -> None:
    """Write the table that "auto" chooses by: milliseconds of a call at each of two lengths, ours and cuDNN's.

    Lines go to the file as they are measured; those that are there already are not measured again.
    """
    lengths = [f"{who}_{T}" for who in ("ours", "torch") for T in LENGTHS]
    if not path.exists():
        path.write_text(",".join(["cell", "numbers", "mode", "batch", "hidden", *lengths]) + "\n")
    there = path.read_text()
    torch.backends.cudnn.allow_tf32 = True  # as it is unless a user forbids it
    for cell in cells:
        for name in names:
            prepare(name)
            for B, H in GRID:
                if f"\n{cell},{name},both,{B},{H}," in there:
                    continue
                try:
                    short, long = (measured(cell, name, T, B, H, DTYPES[name], 5) for T in LENGTHS)
                except BackendError as error:
                    print(error)
                    continue
                lines = ""
                for place, mode in enumerate(("forward", "both")):
                    times = (short[place], long[place], short[2 + place], long[2 + place])
                    lines += (
                        f"{cell},{name},{mode},{B},{H}," + ",".join(f"{each:.3f}" for each in times) + "\n"
                    )
                with path.open("a") as file:
                    file.write(lines)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cell", nargs="+", default=["lstm"])
    options.add_argument("--dtype", nargs="+", default=["bfloat16"], choices=DTYPES)
    options.add_argument("--hidden", nargs="+", type=int, default=[shape[2] for shape in SHAPES])
    options.add_argument("--rounds", type=int, default=7, help="of which medians are taken")
    options.add_argument("--table", type=Path, help="write what auto chooses by to this file")
    given = options.parse_args()
    if given.table is not None:
        table(given.cell, given.dtype, given.table)
        return
    print(torch.cuda.get_device_name(0), "torch", torch.__version__)
    print("cell             dtype        T,   B,    H     ours    both    cuDNN    both  ratio  both")
    for cell in given.cell:
        for name in given.dtype:
            for shape in SHAPES:
                if shape[2] in given.hidden:
                    print(row(cell, name, shape, given.rounds), flush=True)


if __name__ == "__main__":
    main()
