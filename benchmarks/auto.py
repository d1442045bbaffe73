"""What `convert` gains and costs: torch.nn's layer beside the same layer converted, which chooses by itself.

    python benchmarks/auto.py                      # the shapes of `cellwise bench`, of single steps, text and speech
    python benchmarks/auto.py --fresh 40 --seed 7  # shapes drawn at random, none of which the choice was measured at

Both sides alternate in one process on the same weights and input; results are compared first. Printed are torch's time
over ours, the quartiles of the rounds' ratios, and the backend that was chosen; at the end the worst. Exit status 1 if
any is below 0.95 by its upper quartile, so that one disturbed round is no failure.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from typing import Any

import preference
import torch

import cellwise

_LEAST = 0.95


def fresh(count: int, seed: int) -> list[tuple[int, int, int, int]]:
    """Shapes drawn evenly over the logarithms of their sizes."""
    draw, found = random.Random(seed), []
    while len(found) < count:
        T, B, D, H = (round(math.exp(draw.uniform(0, math.log(most)))) for most in (800, 256, 1024, 1024))
        H = max(H, 4)
        if preference.work(T, B, D, H) <= preference.MOST_WORK:
            found.append((T, B, D, H))
    return found


def call_modes(layer: Any, mode: str) -> str:
    """Set a layer to the mode in which something is done; the name of what is done."""
    layer.train(mode == "train")
    return {"evaluate": "record"}.get(mode, mode)


def compare(
    shape: tuple[int, int, int, int],
    family: str,
    mode: str,
    ragged: bool,
    options: dict[str, Any],
    seconds: float,
) -> float:
    """Time both sides, print a line; the upper quartile of the ratio."""
    T, B, D, H = shape
    theirs, ours = preference.layers(family, D, H, **options)
    ours.backend = "auto"
    x = preference.batch(T, B, D, ragged, torch.float32)
    name = {call_modes(layer, mode) for layer in (theirs, ours)}.pop()
    with torch.no_grad():
        outputs = [layer(x)[0] for layer in (theirs, ours)]
    outputs = [each if torch.is_tensor(each) else each.data for each in outputs]
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)
    given = torch.randn_like(outputs[0])
    pair = [preference.works(layer, x, given)[name] for layer in (theirs, ours)]
    with torch.set_grad_enabled(mode != "infer"):
        chosen = cellwise.explain(ours, x).chosen
    torchs, own = preference.samples(pair, preference.clock_of(torch.get_num_threads()), seconds)
    ratios = sorted(t / o for t, o in zip(torchs, own, strict=True))
    low, middle, high = (ratios[round((len(ratios) - 1) * part)] for part in (0.25, 0.5, 0.75))
    what = f"{family}{' packed' if ragged else ''}{' ' + str(options) if options else ''} {mode}"
    print(
        f"{what:44} {','.join(map(str, shape)):18} {middle:6.2f}  {low:.2f} to {high:.2f}  {chosen}",
        flush=True,
    )
    return high


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--fresh", type=int, default=0, help="So many shapes drawn at random in place of the named."
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--families", default="lstm,gru,rnn_tanh")
    parser.add_argument("--modes", default="infer,evaluate,train")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="For each line.")
    parser.add_argument("--stacked", action="store_true", help="Two layers of two directions.")
    parser.add_argument("--packed", action="store_true", help="Packed sequences of many lengths.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    options = {"num_layers": 2, "bidirectional": True} if arguments.stacked else {}
    found = {}
    for family in arguments.families.split(","):
        for shape in fresh(arguments.fresh, arguments.seed) if arguments.fresh else preference.NAMED:
            if arguments.packed and (shape[0] == 1 or shape[1] == 1):
                continue
            for mode in arguments.modes.split(","):
                found[family, shape, mode] = compare(
                    shape, family, mode, arguments.packed, options, arguments.seconds
                )
    slow = {what: ratio for what, ratio in found.items() if ratio < _LEAST}
    gain = math.exp(sum(map(math.log, found.values())) / len(found))
    print(
        f"\n{len(found)} calls, geometric mean {gain:.2f}, worst {min(found.values()):.2f}, below {_LEAST}: {len(slow)}"
    )
    for what, ratio in slow.items():
        print(f"  {ratio:.2f} {what}")
    sys.exit(1 if slow else 0)


if __name__ == "__main__":
    main()
