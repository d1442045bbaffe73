"""A cell of one's own, trained on a GPU: the kernels beside a Python loop over steps, also with a compiled step.

python benchmarks/gpu_own_cell.py --steps 256 --batch 64 --hidden 256 --dtype bfloat16
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from gpu import DTYPES, timed
from torch import Tensor

import cellwise
from cellwise import Cell, sigmoid, tanh


class LeakyLSTM(Cell):
    """An LSTM whose candidate sees the memory too: a third product that waits for the gates."""

    gates = ("i", "f", "g", "o")
    states = ("h", "c")

    def step(self, x: Any, h: Any, c: Any) -> Any:
        i, f = sigmoid(x.i + h.i), sigmoid(x.f + h.f)
        c = f * c + i * tanh(x.g + (f * c).g)
        return sigmoid(x.o + h.o) * tanh(c), c


def step(x: Tensor, h: Tensor, c: Tensor, w: Tensor, wg: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The same equations in torch: x (B, 4 H) is the input's product."""
    size = h.shape[1]
    gates = x[:, : 3 * size] + torch.nn.functional.linear(h, w, b)
    i, f, o = gates.sigmoid().chunk(3, dim=1)
    c = f * c + i * (x[:, 3 * size :] + torch.nn.functional.linear(f * c, wg)).tanh()
    return o * c.tanh(), c


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("steps", 256), ("batch", 64), ("hidden", 256)):
        options.add_argument(f"--{name}", type=int, default=value)
    options.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    given = options.parse_args()
    T, B, H, dtype = given.steps, given.batch, given.hidden, DTYPES[given.dtype]
    torch.set_float32_matmul_precision("highest" if given.dtype == "float32" else "high")
    layers = [
        cellwise.Recurrent(LeakyLSTM, H, H, backend=name, device="cuda", dtype=dtype)
        for name in ("cuda", "reference")
    ]
    layers[1].load_state_dict(layers[0].state_dict())
    x = torch.randn(T, B, H, device="cuda", dtype=dtype, requires_grad=True)
    at_output = torch.randn(T, B, H, device="cuda", dtype=dtype)
    found, wanted = (layer(x)[0].float() for layer in layers)
    print(f"outputs differ by {((found - wanted).norm() / wanted.norm()).item():.1e}")
    w_x, w, wg = (
        torch.randn(rows, H, device="cuda", dtype=dtype, requires_grad=True) for rows in (4 * H, 3 * H, H)
    )
    w_x.data /= H**0.5
    w.data /= H**0.5
    wg.data /= H**0.5
    b = torch.zeros(3 * H, device="cuda", dtype=dtype, requires_grad=True)

    def loop(run: Any) -> Tensor:
        h = c = torch.zeros(B, H, device="cuda", dtype=dtype)
        given = torch.nn.functional.linear(x, w_x)
        outputs = []
        for t in range(T):
            h, c = run(given[t], h, c, w, wg, b)
            outputs.append(h)
        return torch.stack(outputs)

    def train(layer: Any) -> Any:
        return lambda: torch.autograd.grad(layer(x)[0], [x, *layer.parameters()], at_output)

    def train_loop(run: Any) -> Any:
        return lambda: torch.autograd.grad(loop(run), [x, w_x, w, wg, b], at_output)

    compiled = torch.compile(step)
    names = (
        "cellwise, backend cuda",
        "a Python loop of torch",
        "the same, its step compiled",
        "backend reference",
    )
    times = timed([train(layers[0]), train_loop(step), train_loop(compiled), train(layers[1])], 3)
    print(f"{torch.cuda.get_device_name(0)}, T={T} B={B} H={H} {given.dtype}, forward and backward")
    for name, each in zip(names, times, strict=True):
        print(f"  {name:<30} {each:>9.2f} ms  {each / times[0]:>6.1f} times")


if __name__ == "__main__":
    main()
