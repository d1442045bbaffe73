"""A process that trains for days: memory stays where it was after the first few hundred calls."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import cellwise

STATM = Path("/proc/self/statm")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not STATM.exists(), reason="a process's memory is read from /proc"),
]

MEGABYTE = 1 << 20
SHAPES = [(1 + 7 * i % 41, 1 + 3 * i % 17) for i in range(100)]  # T, B


def _resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _trainer(name: str) -> Callable[[int, int], None]:
    layer = cellwise.Recurrent(name, 5, 20, backend="cpu", bidirectional=True)
    optimizer = torch.optim.SGD(layer.parameters(), 1e-3)

    def train(steps: int, batch: int) -> None:
        x = torch.randn(steps, batch, 5)
        lengths = torch.randint(0, steps + 1, (batch,)).index_fill(0, torch.tensor([0]), steps)
        optimizer.zero_grad()
        layer(x, lengths=lengths)[0].square().mean().backward()
        optimizer.step()

    return train


def _growth(call: Callable[[int], None], warm: int, calls: int) -> float:
    """Megabytes by which the process grows over `calls` calls after `warm` of them."""
    for number in range(warm):
        call(number)
    before = _resident()
    for number in range(calls):
        call(number)
    return (_resident() - before) / MEGABYTE


def _train(name: str) -> float:
    train = _trainer(name)
    return _growth(lambda _: train(9, 6), warm=500, calls=2000)


def _train_on_many_shapes() -> float:
    train = _trainer("gru")
    return _growth(lambda i: train(*SHAPES[i % len(SHAPES)]), warm=500, calls=2000)


def _stream() -> float:
    stream = cellwise.Recurrent("lstm", 5, 20, 2).stream()
    x = torch.randn(5)

    def step(_: int) -> None:
        stream(x)

    # Python takes memory for its own objects a mebibyte at a time, once more within the first 20,000 steps.
    return _growth(step, warm=20_000, calls=40_000)


def _leak() -> float:
    kept = []
    return _growth(lambda _: kept.append(torch.ones(1000)), warm=500, calls=2000)


MEASURED: dict[str, Callable[[], float]] = {
    "lstm": lambda: _train("lstm"),
    "gru": lambda: _train("gru"),
    "shapes": _train_on_many_shapes,
    "stream": _stream,
    "leak": _leak,
}


def _measured(what: str) -> float:
    """In a process of its own: in one that has freed much, growth would be hidden."""
    command = [sys.executable, "-W", "ignore", __file__, what]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# What is remembered of shapes and lengths, which are drawn anew in each call, fills up meanwhile.
@pytest.mark.parametrize(("what", "megabytes"), [("lstm", 4), ("gru", 4), ("shapes", 6), ("stream", 1)])
def test_memory_stays_where_it_was(what: str, megabytes: float) -> None:
    assert _measured(what) < megabytes


def test_growth_is_seen() -> None:
    assert _measured("leak") > 6


if __name__ == "__main__":
    print(MEASURED[sys.argv[1]]())
