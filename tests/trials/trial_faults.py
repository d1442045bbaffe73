"""A fault at every call that writes a run: does each such run go on, and end in the same bits?

python tests/trials/trial_faults.py [CHARACTERS_EVERY FORECAST_EVERY]
"""

from __future__ import annotations

import pickle
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

import numpy as np
import torch
from faults import FAULTS, KILLED, REFUSED, Crash, Disk, calls_of, in_a_fork, watched
from safetensors.torch import load_file

from cellwise.tasks import CharacterModel, Forecaster
from cellwise.tasks.errors import RunFolderError
from cellwise.tasks.training.run_check import check_run

TEXT = "the quick brown fox jumps over the lazy dog. " * 30


def series() -> Any:
    """Two series of sixty days, as a polars frame."""
    import polars

    days = np.datetime64("2024-01-01", "D") + np.arange(120) % 60
    return polars.DataFrame(
        {"unique_id": ["a"] * 60 + ["b"] * 60, "ds": days, "y": np.sin(np.arange(120) / 3) + 5}
    )


def characters(folder: Path) -> None:
    model = CharacterModel(
        embedding_size=2, hidden_size=4, epochs=3, length=64, batch_size=16, patience=0, seed=1
    )
    model.fit(TEXT, folder=folder, progress=False)


def forecast(folder: Path) -> None:
    Forecaster(horizon=3, hidden_size=4, epochs=2, patience=0).fit(series(), folder=folder, progress=False)


def same(one: Path, other: Path) -> bool:
    """The same weights, optimizer and rows, but for the seconds; every file as its checksum says, and the run loads."""
    for name in ("best.safetensors", "last.safetensors"):
        a, b = load_file(one / name), load_file(other / name)
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            return False
    rows = [
        [line.split(",")[:4] for line in (run / "metrics.csv").read_text().splitlines()]
        for run in (one, other)
    ]
    there = [
        {path.relative_to(run) for path in run.rglob("*") if path.name != "run.lock"} for run in (one, other)
    ]
    return rows[0] == rows[1] and there[0] == there[1] and all(each.is_whole for each in check_run(one))


def try_faults(name: str, fit: Callable[[Path], None], home: Path, every: int) -> int:
    """Prints the figures of one task; returns how many runs went wrong."""
    whole = home / "whole"
    calls = _calls(home, fit, whole)
    wrong = 0
    for fault in FAULTS:
        ended: Counter[int] = Counter()
        resumed = 0
        for at in range(0, len(calls), every):
            folder = home / "run"

            def work(folder: Path = folder, at: int = at, fault: str = fault) -> None:
                with watched(Disk(folder, fault, at)):
                    fit(folder)

            ended[in_a_fork(work, (RunFolderError, OSError))] += 1
            resumed += goes_on(fit, folder, whole)
        print(
            f"{name}: {fault} at {sum(ended.values())} of {len(calls)} calls: {ended[KILLED]} killed, {ended[REFUSED]} "
            f"refused in a sentence, {ended[0]} finished; {resumed} end in the same bits",
            flush=True,
        )
        wrong += sum(ended.values()) - resumed
    return wrong + try_power(name, fit, home, whole, every)


def _calls(home: Path, fit: Callable[[Path], None], folder: Path) -> list[tuple[Any, ...]]:
    """The calls of a whole run. Every fit has a process of its own: polars starts threads when it is imported, and
    a fork has none of them."""
    kept = home / "calls"
    if in_a_fork(lambda: kept.write_bytes(pickle.dumps(calls_of(folder, lambda: fit(folder)))), ()):
        raise RuntimeError("the run to compare with did not end")
    return list(pickle.loads(kept.read_bytes()))


def try_power(name: str, fit: Callable[[Path], None], home: Path, whole: Path, every: int) -> int:
    """A loss of power after each call, with the names that were not synced lost or there."""
    calls = _calls(home, fit, home / "run")
    tried = resumed = 0
    for lost in (True, False):
        crash = Crash(home / "run")
        for number, call in enumerate(calls):
            crash.do(*call)
            if number % every == 0:
                crash.build(home / "after", lost)
                tried += 1
                resumed += goes_on(fit, home / "after", whole)
    print(f"{name}: power lost after {tried} calls; {resumed} end in the same bits", flush=True)
    return tried - resumed


def goes_on(fit: Callable[[Path], None], folder: Path, whole: Path) -> bool:
    """Run the same command again, where it is needed, compare, and clear away."""
    try:
        if not (folder / "summary.json").exists():
            in_a_fork(lambda: fit(folder), ())
        good = same(folder, whole)
    except (RunFolderError, OSError, ValueError) as error:
        print(f"  {error}")
        good = False
    shutil.rmtree(folder, ignore_errors=True)
    return good


def main() -> int:
    every = [int(each) for each in sys.argv[1:]] or [1, 3]
    wrong = 0
    for (name, fit), step in zip((("characters", characters), ("forecast", forecast)), every, strict=True):
        with tempfile.TemporaryDirectory() as home:
            wrong += try_faults(name, fit, Path(home), step)
    return wrong


if __name__ == "__main__":
    sys.exit(main() > 0)
