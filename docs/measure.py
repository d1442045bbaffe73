"""Measure once more what takes minutes: `python docs/measure.py gradients|memory|scaling`, one at a time.

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


def main(name: str) -> None:
    from cellwise.bench.machine import describe

    made = scaling() if name == "scaling" else by_command(name)
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps({**made, "measured_on": describe()}, indent=1)
    (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    names = (*COMMANDS, "scaling")
    if len(sys.argv) != 2 or sys.argv[1] not in names:
        sys.exit(f"say which of {', '.join(names)} to measure")
    main(sys.argv[1])
