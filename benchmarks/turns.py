"""Two sides of a benchmark in turns, in processor time: what a benchmark of a task's loops shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median

Run = Callable[[], int]  # does some work and says of how many pieces


def speed(run: Run, seconds: float) -> float:
    """Pieces per second of processor time."""
    started, count = time.process_time(), 0
    while time.process_time() - started < seconds:
        count += run()
    return count / (time.process_time() - started)


def compare(name: str, runs: Iterable[Run], seconds: float, rounds: int) -> None:
    """Run the plain loop and ours once, then in turns; print the median of each, and of the ratios with their range."""
    runs = tuple(runs)
    for run in runs:
        run()
    found = [[speed(run, seconds) for run in runs] for _ in range(rounds)]
    plain, ours = (median(side) for side in zip(*found, strict=True))
    ratios = [b / a for a, b in found]
    print(
        f"{name:<27} plain {plain:9,.0f}   ours {ours:9,.0f}   {median(ratios):5.2f} times "
        f"({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )
