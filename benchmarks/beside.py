"""What masks, inputs beside x, resets, lengths and other widths cost: training steps with them, beside the plain LSTM.

    python benchmarks/beside.py [--shape 64,32,128,128] [--seconds 20] [--ways] [--infer]

For a shape (T, B, D, H), in float32 on backend="cpu": processor time of forward and backward, the median over rounds in
which the sides take turns in one process, with quartiles; and over that of the LSTM. Beside them a loop over time of
torch's own operators that computes the zoneout LSTM (F.linear, dropout masks by torch.rand), and the drawing of two
masks alone. With `--ways` each call also by the way of all calls, without the short one; with `--infer` forward passes
without gradients. One thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import cellwise
from cellwise.bench import machine
from cellwise.cells import SCRN, FastSlowLSTM
from cellwise.nn import plain


def training(layer: nn.Module, x: Tensor, **beside: Tensor) -> Callable[[], None]:
    def run() -> None:
        if not torch.is_grad_enabled():
            layer(x, **beside)
            return
        layer(x, **beside)[0].sum().backward()
        layer.zero_grad()

    return run


def by_the_long_way(run: Callable[[], None]) -> Callable[[], None]:
    """The same without the short way of plain calls."""

    def other() -> None:
        short, plain.call = plain.call, lambda *_: None
        run()
        plain.call = short

    return other


class ZoneoutLoop(nn.Module):
    """The zoneout LSTM step by step."""

    def __init__(self, like: cellwise.Recurrent) -> None:
        super().__init__()
        self.weights = nn.ParameterList([each.detach().clone() for each in like.parameters()])

    def forward(self, x: Tensor) -> tuple[Tensor]:
        w, u, b, v = self.weights
        h = c = x.new_zeros(x.shape[1], u.shape[1])
        outputs = []
        for each in x:
            i, f, g, o = (nn.functional.linear(each, w, b) + nn.functional.linear(h, u, v)).chunk(4, 1)
            made = f.sigmoid() * c + i.sigmoid() * g.tanh()
            new = o.sigmoid() * made.tanh()
            h, c = (
                torch.where(torch.rand_like(old) < p, old, now)
                for old, now, p in ((h, new, 0.05), (c, made, 0.5))
            )
            outputs.append(h)
        return (torch.stack(outputs),)


def sides_of(T: int, B: int, D: int, H: int) -> dict[str, Callable[[], None]]:
    x, dt = torch.randn(T, B, D), torch.rand(T, B)
    names = ("lstm", "zoneout-lstm", "recurrent-dropout-lstm", "variational-lstm", "time-aware-lstm")
    layers = {name: cellwise.Recurrent(name, D, H, backend="cpu") for name in names}
    aware = layers.pop("time-aware-lstm")
    sides = {name: training(layer, x) for name, layer in layers.items()}
    sides["time-aware-lstm, dt a row"] = training(aware, x, dt=dt)
    sides["time-aware-lstm, dt a unit"] = training(aware, x, dt=dt.unsqueeze(-1).repeat(1, 1, H))
    lengths = torch.arange(B) % T + 1
    sides["lstm, resets"] = training(layers["lstm"], x, resets=torch.rand(T, B) < 0.1)
    sides["lstm, lengths"] = training(layers["lstm"], x, lengths=lengths)
    for name, cell in (("scrn", SCRN(context="H / 2")), ("fast-slow-lstm", FastSlowLSTM(slow="H / 2"))):
        sides[f"{name}, H / 2 slow units"] = training(cellwise.Recurrent(cell, D, H, backend="cpu"), x)
    sides["lstm, weight_dropout"] = training(
        cellwise.Recurrent("lstm", D, H, backend="cpu", weight_dropout=0.5), x
    )
    sides["zoneout as a torch loop"] = training(ZoneoutLoop(layers["zoneout-lstm"]), x)

    def draw() -> None:
        for p in (0.05, 0.5):
            (torch.rand(T * B, H) < p).float()

    return sides | {"two masks drawn": draw}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="64,32,128,128")
    parser.add_argument("--seconds", type=float, default=20.0, help="processor time for all sides together")
    parser.add_argument("--ways", action="store_true", help="each call also by the way of all calls")
    parser.add_argument("--infer", action="store_true", help="forward passes without gradients")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(not options.infer)
    sides = sides_of(*map(int, options.shape.split(",")))
    if options.ways:
        own = [name for name in sides if name not in ("zoneout as a torch loop", "two masks drawn")]
        sides |= {f"{name}, long way": by_the_long_way(sides[name]) for name in own}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        for _ in range(3):  # lengths are known the second time, and a plan is made the third
            run()
    while sum(map(sum, times.values())) < options.seconds:
        for name, run in sides.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    print(f"{machine.one_line(machine.describe())}\n(T, B, D, H) = ({options.shape})")
    base = statistics.median(times["lstm"])
    for name, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        spread = f"{low * 1e3:7.2f} to {high * 1e3:7.2f}"
        print(f"{name:<36} {middle * 1e3:8.2f} ms  {spread}  {middle / base:5.2f} of the LSTM")


if __name__ == "__main__":
    main()
