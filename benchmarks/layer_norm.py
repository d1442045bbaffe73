"""What layer normalization costs within a step: `Recurrent("layernorm-lstm")` beside the plain LSTM and torch's loop.

    python benchmarks/layer_norm.py [--batches 64 1] [--steps 100] [--hidden 128] [--rounds 7] [--cell layernorm-gru]

A training step (forward, backward and gradients set to None, without an optimizer) on one thread, D = H, float32:

    plain      the cell that is normalized, by the same kernels (backend="cpu")
    ours       the normalized cell (backend="cpu")
    torch      the same cell as a Python loop over torch's operators: F.linear, F.layer_norm, the rest

The loop and our layer are compared first, in their outputs and the gradients of the input and all weights. Sides take
turns in one process; a number is the median processor time of a step in milliseconds, a ratio the median of the rounds'
ratios with their range.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

import cellwise
from cellwise.bench import machine

Layer = Callable[[Tensor], Tensor]
PLAIN = {"layernorm-lstm": "lstm", "layernorm-gru": "gru"}


def _norm(layer: cellwise.Recurrent, values: Tensor, kind: str, gates: str) -> Tensor:
    gain = torch.cat([getattr(layer, f"gain_{kind}{gate}_l0") for gate in gates])
    return F.layer_norm(values, gain.shape, gain)


def lstm_loop(layer: cellwise.Recurrent, x: Tensor) -> Tensor:
    """The cell of `layernorm-lstm` with the weights of a layer; x (T, B, D) to outputs (T, B, H)."""
    h = c = x.new_zeros(x.shape[1], layer.hidden_size)
    shift = torch.cat([getattr(layer, f"shift_{gate}_l0") for gate in "ifgo"])
    of_x = _norm(layer, F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0), "x", "ifgo") + shift
    outputs = []
    for gates in of_x:
        sums = gates + _norm(layer, F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0), "h", "ifgo")
        i, f, g, o = sums.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(F.layer_norm(c, c.shape[1:], layer.gain_c_l0, layer.shift_c_l0))
        outputs.append(h)
    return torch.stack(outputs)


def gru_loop(layer: cellwise.Recurrent, x: Tensor) -> Tensor:
    """The cell of `layernorm-gru`, likewise."""
    h = x.new_zeros(x.shape[1], layer.hidden_size)
    size = layer.hidden_size

    def normalized(values: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        gates = _norm(layer, values[..., : 2 * size], kind, "rz")
        return gates, _norm(layer, values[..., 2 * size :], kind, "n") + getattr(layer, f"shift_{kind}n_l0")

    of_x, candidates = normalized(F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0), "x")
    of_x = of_x + torch.cat([layer.shift_r_l0, layer.shift_z_l0])
    outputs = []
    for gates, candidate in zip(of_x, candidates, strict=True):
        of_h, recurrent = normalized(F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0), "h")
        r, z = torch.sigmoid(gates + of_h).chunk(2, -1)
        h = (1 - z) * torch.tanh(candidate + r * recurrent) + z * h
        outputs.append(h)
    return torch.stack(outputs)


LOOPS = {"layernorm-lstm": lstm_loop, "layernorm-gru": gru_loop}


def gradients(run: Layer, layer: cellwise.Recurrent, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of a loss at the input and the weights."""
    x = x.detach().requires_grad_()
    output = run(x)
    weights = list(layer.parameters())
    return [output.detach(), *torch.autograd.grad((output * output.cos()).sum(), [x, *weights])]


def compared(cell: str, ours: cellwise.Recurrent, x: Tensor) -> float:
    """The largest difference between loop and layer, over the largest number."""
    pairs = zip(
        gradients(lambda x: LOOPS[cell](ours, x), ours, x),
        gradients(lambda x: ours(x)[0], ours, x),
        strict=True,
    )
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def training(run: Layer, layer: cellwise.Recurrent, x: Tensor) -> Callable[[], None]:
    given = torch.ones(*x.shape[:2], layer.hidden_size)

    def step() -> None:
        run(x).backward(given)
        layer.zero_grad()

    return step


def times(
    sides: dict[str, Callable[[], None]], counts: dict[str, int], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of processor time of each side's step, round by round."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            started = time.process_time()
            for _ in range(counts[name]):
                run()
            found[name].append((time.process_time() - started) / counts[name] * 1e3)
    return found


def ratio(over: list[float], under: list[float]) -> str:
    each = [a / b for a, b in zip(over, under, strict=True)]
    return f"{median(each):.2f} ({min(each):.2f} to {max(each):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=LOOPS, default="layernorm-lstm")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine.one_line(machine.describe()))
    for batch in options.batches:
        torch.manual_seed(0)
        size = options.hidden
        plain, ours = (
            cellwise.Recurrent(name, size, size, backend="cpu")
            for name in (PLAIN[options.cell], options.cell)
        )
        x = torch.randn(options.steps, batch, size)
        difference = compared(options.cell, ours.double(), x.double())
        if difference > 1e-9:
            raise SystemExit(f"the loop and the layer differ by {difference:.1e}; there is nothing to time")
        ours.float()
        x.requires_grad_()
        sides = {
            "plain": training(lambda x, layer=plain: layer(x)[0], plain, x),
            "ours": training(lambda x, layer=ours: layer(x)[0], ours, x),
            "torch": training(lambda x, layer=ours: LOOPS[options.cell](layer, x), ours, x),
        }
        few = max(1, 64 // batch)
        found = times(sides, {"plain": few, "ours": few, "torch": max(1, few // 16)}, options.rounds)
        each = "  ".join(f"{name} {median(found[name]):8.2f} ms" for name in sides)
        print(f"T {options.steps}, B {batch:3d}, D = H = {size}, {options.cell}: {each}")
        print(f"    ours over plain {ratio(found['ours'], found['plain'])}", end="")
        print(f"   torch over ours {ratio(found['torch'], found['ours'])}", flush=True)


if __name__ == "__main__":
    main()
