"""Measure once more what takes minutes: `python docs/measure.py gradients|memory|scaling|reach`, one at a time.

What takes an hour, cells against cells, is measured by a command that goes on where it was: see docs/book/bakeoff.py.
Writes docs/measured/NAME.json with the command and the machine beside the numbers. All charts, tables and findings of
the book are made from these files when it is built.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "measured"
COMMANDS = {
    "gradients": ["cellwise", "gradients"],
    "memory": ["cellwise", "memory", "--lags", "4,8,16,32", "--minutes", "0"],
}


def by_command(name: str) -> dict[str, Any]:
    """What a command of cellwise writes beside its picture."""
    command = COMMANDS[name]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{name}.svg"
        subprocess.run(
            [sys.executable, "-m", "cellwise", *command[1:], "--out", str(out)],
            check=True,
            env=dict(_one_thread()),
        )
        return {
            "command": f"{' '.join(command)} --out {name}.svg",
            **json.loads(out.with_suffix(".json").read_text()),
        }


def _one_thread() -> dict[str, str]:
    import os

    return {**os.environ, "OMP_NUM_THREADS": "1"}


def scaling() -> dict[str, Any]:
    """How the time of a layer grows, as `cellwise complexity --measure` measures it."""
    from cellwise import cells
    from cellwise.understand.complexity import Sizes
    from cellwise.understand.scaling import measure

    found = measure([cells.get(name) for name in ("rnn", "lstm", "gru")], Sizes(), report=print)
    return {
        "command": "cellwise complexity rnn lstm gru --measure",
        "kind": "scaling",
        "result": asdict(found),
    }


def reach() -> dict[str, Any]:
    """For each cell how many steps back the derivative of its states is `least` or more, as a network is drawn: the
    largest singular value, its geometric mean over sequences and networks."""
    from cellwise import cells

    sizes = {"length": 100, "hidden_size": 16, "input_size": 4, "sequences": 4, "networks": 3, "least": 0.01}
    steps = {name: _reach(name, **sizes) for name in cells.names()}
    return {"command": "python docs/measure.py reach", "kind": "reach", "result": {**sizes, "steps": steps}}


def _reach(
    cell: str, length: int, hidden_size: int, input_size: int, sequences: int, networks: int, least: float
) -> int:
    """As above; `length` where it is that far at least."""
    import torch

    import cellwise
    from cellwise.understand.jacobians import SMALLEST, gradient_flow

    found = []
    for seed in range(networks):
        torch.manual_seed(seed)
        layer = cellwise.Recurrent(cell, input_size, hidden_size)
        x = torch.randn(length, sequences, input_size)
        found.append(gradient_flow(layer, x).whole.clamp(min=SMALLEST))
    mean = torch.cat(found, 1).log().mean(1).exp()
    return max(lag for lag, norm in enumerate(mean.tolist()) if norm >= least)


_HERE = {"scaling": scaling, "reach": reach}


def main(name: str) -> None:
    from cellwise.bench.machine import describe

    made = _HERE[name]() if name in _HERE else by_command(name)
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({**made, "measured_on": describe()}, indent=1)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    names = (*COMMANDS, *_HERE)
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        sys.exit(f"say which of {', '.join(names)} to measure")
    main(sys.argv[1])
