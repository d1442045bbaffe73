"""What layer normalization costs within a step: `Recurrent("layernorm-lstm")` beside the plain LSTM and torch's loop.

    python benchmarks/layer_norm.py [--batches 64 1] [--steps 100] [--hidden 128] [--rounds 7] [--cell layernorm-gru]

A training step (forward, backward and gradients set to None, without an optimizer) on one thread, D = H, float32:

    plain      the cell that is normalized, by the same kernels (backend="cpu")
    ours       the normalized cell (backend="cpu")
    torch      the same cell as a Python loop over torch's operators, a step as people write it: F.linear, F.layer_norm
    ahead      the same loop, with the input's products and norms of all steps at once before it

The loop and our layer are compared first, in their outputs and the gradients of the input and all weights. Sides take
turns in one process; a number is the median processor time of a step in milliseconds, a ratio the median of the rounds'
ratios with their range.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
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


def of_input(layer: cellwise.Recurrent, x: Tensor, lone: str, together: str, ahead: bool) -> Iterator[Tensor]:
    """For each step what the input adds to the gates: normalized together, and those in `lone` each by itself.

    Args:
        ahead: for all steps at once, which a cell cannot know of; else as a step is written, within it.
    """
    for each in [x] if ahead else x:
        values = F.linear(each, layer.weight_ih_l0, layer.bias_ih_l0)
        size = len(together) * layer.hidden_size
        parts = [_norm(layer, values[..., :size], "x", together)]
        parts += [_norm(layer, values[..., size:], "x", gate) for gate in lone]
        found = torch.cat(parts, -1) if lone else parts[0]
        yield from found if ahead else (found,)


def lstm_loop(layer: cellwise.Recurrent, x: Tensor, ahead: bool) -> Tensor:
    """The cell of `layernorm-lstm` with the weights of a layer; x (T, B, D) to outputs (T, B, H)."""
    h = c = x.new_zeros(x.shape[1], layer.hidden_size)
    shift = torch.cat([getattr(layer, f"shift_{gate}_l0") for gate in "ifgo"])
    outputs = []
    for gates in of_input(layer, x, "", "ifgo", ahead):
        recurrent = _norm(layer, F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0), "h", "ifgo")
        i, f, g, o = (gates + recurrent + shift).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(F.layer_norm(c, c.shape[1:], layer.gain_c_l0, layer.shift_c_l0))
        outputs.append(h)
    return torch.stack(outputs)


def gru_loop(layer: cellwise.Recurrent, x: Tensor, ahead: bool) -> Tensor:
    """The cell of `layernorm-gru`, likewise."""
    h, size = x.new_zeros(x.shape[1], layer.hidden_size), 2 * layer.hidden_size
    shift = torch.cat([layer.shift_r_l0, layer.shift_z_l0])
    outputs = []
    for of_x in of_input(layer, x, "n", "rz", ahead):
        recurrent = F.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)
        sums = of_x[:, :size] + _norm(layer, recurrent[:, :size], "h", "rz") + shift
        r, z = torch.sigmoid(sums).chunk(2, -1)
        candidate = _norm(layer, recurrent[:, size:], "h", "n") + layer.shift_hn_l0
        n = torch.tanh(of_x[:, size:] + layer.shift_xn_l0 + r * candidate)
        h = (1 - z) * n + z * h
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
        gradients(lambda x: LOOPS[cell](ours, x, False), ours, x),
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
        loop = LOOPS[options.cell]
        sides = {
            "plain": training(lambda x, layer=plain: layer(x)[0], plain, x),
            "ours": training(lambda x, layer=ours: layer(x)[0], ours, x),
            "torch": training(partial(loop, ours, ahead=False), ours, x),
            "ahead": training(partial(loop, ours, ahead=True), ours, x),
        }
        few = max(1, 32 // batch)
        counts = {"plain": few, "ours": few} | dict.fromkeys(("torch", "ahead"), max(1, few // 16))
        found = times(sides, counts, options.rounds)
        each = "  ".join(f"{name} {median(found[name]):7.2f} ms" for name in sides)
        print(f"T {options.steps}, B {batch:3d}, D = H = {size}, {options.cell}: {each}")
        ratios = [f"ours over plain {ratio(found['ours'], found['plain'])}"]
        ratios += [f"{name} over ours {ratio(found[name], found['ours'])}" for name in ("torch", "ahead")]
        print("    " + "   ".join(ratios), flush=True)


if __name__ == "__main__":
    main()
