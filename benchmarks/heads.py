"""sLSTM layers whose heads run apart, beside the same with a whole recurrent matrix and a loop of torch's operators.

    python benchmarks/heads.py                                     # the table of docs/decisions/0069
    python benchmarks/heads.py --parts --shapes 64,16,256 --heads 8    # each way to cut a layer beside the whole

A shape is T, B, H. With `--input ready` the gates of the input are given, (T, B, 4H), as in the blocks of xLSTM; with
`x` the layer multiplies an input of H numbers. All sides compute the same, are compared first, and take turns in one
process on one thread, forward and in training (forward, and backward to all weights and the input). A number is the
median over rounds of a side's processor time over that of the first column's side.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from unittest import mock

import torch
from preference import clock_of, samples
from torch import Tensor
from torch.nn import functional as F

import cellwise
from cellwise import cells
from cellwise.backends.cpu import heads as rule

Run = Callable[[], Tensor]


def loop(layer: cellwise.Recurrent, x: Tensor, heads: int) -> Tensor:
    """The layer step by step, with one batched product of all heads."""
    p, size = dict(layer.named_parameters()), layer.hidden_size // heads
    blocks = torch.cat([p[f"weight_hh_{gate}_l0"].mT for gate in layer.cell.gates], dim=2)
    given = x if "weight_ih_l0" not in p else F.linear(x, p["weight_ih_l0"], p["bias_ih_l0"])
    given = (given + p["bias_hh_l0"]).unflatten(-1, (4, heads, size)).permute(0, 3, 1, 2, 4).flatten(3)
    h = c = n = m = x.new_zeros(heads, x.shape[1], size)
    outputs = []
    for each in given:
        log_i, log_f, z, o = (each + torch.bmm(h, blocks)).chunk(4, dim=-1)
        log_f = F.logsigmoid(log_f) + m
        m = torch.maximum(log_f, log_i)
        i, f = (log_i - m).exp(), (log_f - m).exp()
        c = f * c + i * z.tanh()
        n = f * n + i
        h = o.sigmoid() * c / n
        outputs.append(h)
    return torch.stack(outputs).permute(0, 2, 1, 3).flatten(2)


def sides_of(shape: tuple[int, ...], heads: int, ready: bool, all_parts: bool) -> dict[str, Run]:
    """The whole first, then the layer as it is called, or in each number of parts, then torch's loop."""
    T, B, H = shape
    whole = cellwise.Recurrent(cells.SLSTM(heads=heads, arrives_ready=ready), 4 * H if ready else H, H)
    x = torch.randn(T, B, whole.input_size, requires_grad=True)
    choices: dict[str, int | None] = {"whole": 1, "as called": None}
    if all_parts:
        cuts = [each for each in range(2, heads + 1) if heads % each == 0]
        choices = {"whole": 1} | {f"{each} parts": each for each in cuts}

    def side(number: int, parts: int | None) -> Run:
        # A cell of its own, since a layer remembers how its calls are run.
        cell = type(f"Side{number}", (cells.SLSTM,), {"step": cells.SLSTM.step})
        layer = cellwise.Recurrent(cell(**whole.cell.options), whole.input_size, H)
        layer.load_state_dict(whole.state_dict())

        def run() -> Tensor:
            if parts is None:
                return layer(x)[0]
            with mock.patch("cellwise.backends.cpu.parts_for", lambda *_: parts):
                return layer(x)[0]

        return run

    found = {name: side(number, parts) for number, (name, parts) in enumerate(choices.items())}
    return found | {"loop": lambda: loop(whole, x, heads)}


def training(run: Run) -> Callable[[], None]:
    return lambda: run().sum().backward()


def inference(run: Run) -> Callable[[], None]:
    def call() -> None:
        with torch.no_grad():
            run()

    return call


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shapes = [f"256,{batch},{hidden}" for hidden in (256, 512) for batch in (1, 4, 16, 64)]
    parser.add_argument("--shapes", nargs="+", default=shapes, help="T,B,H")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--input", choices=("ready", "x"), nargs="+", default=["ready", "x"])
    parser.add_argument("--parts", action="store_true", help="every number of parts, without the loop")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each line")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for given in asked.input:
        for text in asked.shapes:
            shape = tuple(map(int, text.split(",")))
            sides = sides_of(shape, asked.heads, given == "ready", asked.parts)
            if asked.parts:
                del sides["loop"]
            first, *others = (run().detach() for run in sides.values())
            for other in others:
                torch.testing.assert_close(other, first, rtol=1e-3, atol=1e-4)
            graph = cells.SLSTM(heads=asked.heads).graph
            parts = rule.parts_for(graph, shape[2], shape[0] * shape[1])
            print(f"T,B,H {text}, {asked.heads} heads, {given}; as called in {parts} parts", flush=True)
            for name, mode in (("forward", inference), ("training", training)):
                runs = [mode(run) for run in sides.values()]
                times = samples(runs, clock_of(1), asked.seconds)
                gains = [median(a / b for a, b in zip(times[0], each, strict=True)) for each in times[1:]]
                told = ", ".join(f"{side} {gain:.2f}" for side, gain in zip([*sides][1:], gains, strict=True))
                print(
                    f"  {name:9} whole {1e3 * median(times[0]):8.2f} ms; faster than it: {told}", flush=True
                )


if __name__ == "__main__":
    main()
