"""Language models beside a plain loop of torch: training and one-step generation, in characters per CPU second.

    python benchmarks/language_models.py [--cell lstm] [--seconds 5] [--rounds 5]

Both sides have one layer of 256 units, an embedding of 64, 80 characters, B = 32, T = 64 in training, B = 1 in
generation, one thread. They take turns, so that what else the machine does weighs on both. Printed are the medians of
the rounds, and the median of the ratios within a round. The plain loop keeps the state between pieces as ours does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cellwise.tasks.text.generating import Choice, write_ids
from cellwise.tasks.text.network import CharacterNetwork, detached

CHARACTERS, EMBEDDING, HIDDEN, BATCH, LENGTH = 80, 64, 256, 32, 64
STEPS = {"training": 4, "generation": 300}


class Plain(nn.Module):
    """What one writes with torch."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, EMBEDDING)
        self.layer = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](EMBEDDING, HIDDEN)
        self.decode = nn.Linear(HIDDEN, CHARACTERS)

    def forward(self, ids: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        output, state = self.layer(self.embed(ids), state)
        return self.decode(output), state


def trainer(model: nn.Module) -> Callable[[], int]:
    """Some steps of AdamW on random text; returns how many characters were read."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(CHARACTERS, (LENGTH + 1, BATCH))
    state: Any = None

    def run() -> int:
        nonlocal state
        for _ in range(STEPS["training"]):
            optimizer.zero_grad(set_to_none=True)
            logits, state = model(ids[:-1], state)
            state = detached(state)
            functional.cross_entropy(logits.flatten(0, 1), ids[1:].flatten()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return STEPS["training"] * LENGTH * BATCH

    return run


def plain_writer(model: Plain) -> Callable[[], int]:
    @torch.no_grad()
    def run() -> int:
        ids, state = torch.tensor([[1]]), None
        for _ in range(STEPS["generation"]):
            logits, state = model(ids, state)
            ids = torch.multinomial((logits[-1] / 0.7).softmax(-1), 1)
        return STEPS["generation"]

    return run


def our_writer(model: CharacterNetwork) -> Callable[[], int]:
    def run() -> int:
        written = write_ids(model, torch.tensor([1]), 1, Choice(0.7), 0)
        return sum(1 for _ in islice(written, STEPS["generation"]))

    return run


def speed(run: Callable[[], int], seconds: float) -> float:
    """Characters per CPU second."""
    started, count = time.process_time(), 0
    while time.process_time() - started < seconds:
        count += run()
    return count / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", choices=("lstm", "gru"), default="lstm")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plain, ours = Plain(options.cell), CharacterNetwork(options.cell, CHARACTERS, EMBEDDING, HIDDEN, 1, 0.0)
    sides = {
        "training": (trainer(plain), trainer(ours)),
        "generation": (plain_writer(plain), our_writer(ours)),
    }
    print(f"{options.cell}, torch {torch.__version__}")
    for name, runs in sides.items():
        for run in runs:
            run()
        rounds = [[speed(run, options.seconds) for run in runs] for _ in range(options.rounds)]
        theirs, own = (median(side) for side in zip(*rounds, strict=True))
        ratio = median(b / a for a, b in rounds)
        print(f"{name:<12} plain {theirs:9,.0f}   ours {own:9,.0f}   {ratio:5.2f} times")


if __name__ == "__main__":
    main()
