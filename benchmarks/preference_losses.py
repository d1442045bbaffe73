"""What the choice of "auto" loses at all calls that were measured, against the better of both sides at each.

    python benchmarks/preference_losses.py                     # the rows of preference.py, the table that is shipped
    python benchmarks/preference_losses.py --table OTHER.json  # the same by another table

The rows are the ones that the table was fitted to, so this says how well it describes them; `fit_preference.py` prints
how far off it is at calls that it has not seen. A line says of how many calls the kernels are taken, the mean of the
better side's time over that of the choice, what was there to gain over torch and what is gained, and how often and by
how much the choice is slower than torch's operator, which is never slower than before `convert`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from fit_preference import size_of
from preference import ROWS

from cellwise import cells
from cellwise.backends import cost_model, preference
from cellwise.backends.base import CallContext, LayerSpec, Workload
from cellwise.backends.cost_model import CPU, MODES, RECORD, TRAIN

_SLOWER = 0.97


def ratio_of(row: dict[str, Any], mode: str) -> tuple[float, bool]:
    """Torch's time over that of the kernels, and whether "auto" takes these."""
    T, B, D, H = row["shape"]
    name, _, kind = row["family"].partition("_")
    stack = LayerSpec(cells.get(name).graph, D, H, proj_size=max(1, H // 2) if kind == "projected" else 0)
    context = CallContext(torch.device("cpu"), getattr(torch, row["dtype"]))
    recorded = mode in (RECORD, TRAIN)
    # A pass that records is asked about as a training step is: in evaluation both must gain.
    workload = Workload(
        T, B, size_of(row).rows, row["ragged"], recorded, mode == TRAIN, row.get("threads", 1)
    )
    with mock.patch.object(preference, "vector_bytes", lambda: row["vectors"]):
        found = preference.preferred(stack, context, workload)
    return row[mode][0] / row[mode][1], found is not None and found.backend == CPU


def mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def line(what: str, calls: list[tuple[float, bool]]) -> str:
    got = [ratio if kernels else 1.0 for ratio, kernels in calls]
    best = [max(ratio, 1.0) for ratio, _ in calls]
    lost = [own / other for own, other in zip(got, best, strict=True)]
    slower = [each for each in got if each < _SLOWER]
    taken = sum(kernels for _, kernels in calls)
    return (
        f"{what:26} {len(calls):5} calls, kernels for {taken:4}, of the best {mean(lost):.3f}, "
        f"gain {mean(got):.2f} of {mean(best):.2f}, below {_SLOWER}: {len(slower):3} (worst {min(got):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", type=Path, default=[ROWS])
    parser.add_argument("--table", type=Path, help="In place of the one that is shipped.")
    arguments = parser.parse_args()
    models = cost_model.models()
    if arguments.table:
        models = models | cost_model.read(arguments.table.read_text())
    found: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    with mock.patch.object(preference, "models", lambda: models):
        for file in arguments.rows:
            for row in map(json.loads, file.read_text().splitlines()):
                for mode in MODES:
                    call = ratio_of(row, mode)
                    found[f"{row['vectors']} {row['family']} {row['dtype']}"].append(call)
                    found[f"all {mode}"].append(call)
                    found["all"].append(call)
    for what in sorted(found):
        print(line(what, found[what]))


if __name__ == "__main__":
    main()
