"""Cells with norms, and with a time beside x, on a GPU: the kernels beside the plain LSTM's, and beside a torch loop.

    python benchmarks/gpu_cells.py
    python benchmarks/gpu_cells.py --cell layernorm-lstm --dtype float32 --hidden 64 256

The loop is the cell as people write it in torch's operators, with the input's products, and norms, of all steps before
it. Outputs and gradients of both are compared first, in float32; the error printed is that of our outputs, relative to
float64. Times are medians of CUDA events in milliseconds, sides in turns: forward, and forward with backward; D = H.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from gpu import DTYPES, error_of, prepare, timed
from layer_norm import LOOPS
from torch import Tensor

import cellwise

SHAPES = ((256, 64, 64), (256, 64, 128), (256, 64, 256), (128, 64, 512), (64, 64, 1024), (1024, 16, 64))
# Steps for which both sides are compared first, and how far they may be apart, relative, in float32.
COMPARED, APART = 32, 1e-3

Loop = Callable[[cellwise.Recurrent, Tensor, Tensor | None], Tensor]


def time_aware_loop(layer: cellwise.Recurrent, x: Tensor, dt: Tensor | None) -> Tensor:
    """The cell of `time-aware-lstm` with the weights of a layer; x (T, B, D), dt (T, B) to outputs (T, B, H)."""
    assert dt is not None
    h = c = x.new_zeros(x.shape[1], layer.hidden_size)
    end = 4 * layer.hidden_size
    weight, bias = layer.weight_hh_l0, layer.bias_hh_l0
    fades = 1 / torch.log(math.e + dt).unsqueeze(-1)
    outputs = []
    for now, fade in zip(F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0), fades, strict=True):
        short = torch.tanh(F.linear(c, weight[end:], bias[end:]))
        c = c - short + short * fade
        i, f, g, o = (now + F.linear(h, weight[:end], bias[:end])).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


def normed_loop(cell: str, layer: cellwise.Recurrent, x: Tensor, dt: Tensor | None) -> Tensor:
    """That of a cell with norms, their input's part ahead."""
    return LOOPS[cell](layer, x, True)


CELLS: dict[str, Loop] = {cell: partial(normed_loop, cell) for cell in LOOPS} | {
    "time-aware-lstm": time_aware_loop
}


class Sides:
    """A layer of ours and its loop, on the same weights."""

    def __init__(
        self, cell: str, shape: tuple[int, int, int], dtype: torch.dtype, device: str, backend: str
    ) -> None:
        T, B, H = shape
        torch.manual_seed(0)
        made = {"device": device, "dtype": dtype, "backend": backend}
        self.layer, self.plain = (cellwise.Recurrent(name, H, H, **made) for name in (cell, "lstm"))
        self.x = torch.randn(T, B, H, device=device, dtype=dtype, requires_grad=True)
        self.dt = torch.rand(T, B, device=device, dtype=dtype) if self.layer.cell.inputs else None
        self.at_output = torch.randn(T, B, H, device=device, dtype=dtype)
        self._loop = CELLS[cell]

    def ours(self) -> Tensor:
        return self.layer(self.x, **({} if self.dt is None else {"dt": self.dt}))[0]

    def loop(self) -> Tensor:
        return self._loop(self.layer, self.x, self.dt)

    def lstm(self) -> Tensor:
        return self.plain(self.x)[0]

    def gradients(self, run: Callable[[], Tensor], layer: cellwise.Recurrent) -> tuple[Tensor, ...]:
        return torch.autograd.grad(run(), [self.x, *layer.parameters()], self.at_output)

    def difference(self) -> float:
        """The largest of output and gradients, relative to the loop's as a whole."""
        found, wanted = ([run().detach(), *self.gradients(run, self.layer)] for run in (self.ours, self.loop))
        return max(
            ((a - b).float().norm() / b.float().norm()).item() for a, b in zip(found, wanted, strict=True)
        )

    def runs(self) -> list[Callable[[], object]]:
        """Forward and both ways, of ours, of the plain LSTM, of the loop."""
        return [
            part
            for run, layer in ((self.ours, self.layer), (self.lstm, self.plain), (self.loop, self.layer))
            for part in (run, partial(self.gradients, run, layer))
        ]


def row(cell: str, name: str, shape: tuple[int, int, int], rounds: int) -> str:
    T, B, H = shape
    prepare("float32")
    apart = Sides(cell, (COMPARED, B, H), torch.float32, "cuda", "cuda").difference()
    if not apart <= APART:
        raise SystemExit(
            f"{cell}, H {H}: the loop and the layer differ by {apart:.1e}; there is nothing to time"
        )
    prepare(name)
    sides = Sides(cell, shape, DTYPES[name], "cuda", "cuda")
    error = error_of(sides.layer, sides.x)
    forward, both, plain, plain_both, loop, loop_both = timed(sides.runs(), rounds)
    times = f"{forward:>8.3f} {both:>8.3f} {plain:>8.3f} {plain_both:>8.3f} {loop:>8.2f} {loop_both:>8.2f}"
    ratios = f"{both / plain_both:>6.2f} {loop / forward:>6.1f} {loop_both / both:>6.1f}"
    return f"{cell:<16} {name:<8} {T:>5},{B:>4},{H:>5} {times} {ratios}  error {error:.1e}"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cell", nargs="+", default=["layernorm-lstm", "time-aware-lstm"], choices=CELLS)
    options.add_argument("--dtype", nargs="+", default=["bfloat16"], choices=DTYPES)
    options.add_argument("--hidden", nargs="+", type=int, default=[shape[2] for shape in SHAPES])
    options.add_argument("--rounds", type=int, default=5, help="of which medians are taken")
    given = options.parse_args()
    print(torch.cuda.get_device_name(0), "torch", torch.__version__)
    print(
        "cell             dtype        T,   B,    H     ours     both     LSTM     both     loop     both",
        end="",
    )
    print("  over LSTM, loop over ours: forward, both")
    for cell in given.cell:
        for name in given.dtype:
            for shape in SHAPES:
                if shape[2] in given.hidden:
                    print(row(cell, name, shape, given.rounds), flush=True)


if __name__ == "__main__":
    main()
