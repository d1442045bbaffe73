"""Language models beside a plain loop of torch: training and generation, in characters per CPU second.

    python benchmarks/language_models.py [--cell lstm] [--seconds 5] [--rounds 5]

Both sides have one layer of 256 units, an embedding of 64, 80 characters; B = 32 and T = 64 in training; one text, and
64 side by side, in generation; one thread. They take turns, so that what else the machine does weighs on both. Printed
are the medians of the rounds, and the median of the ratios within a round. The plain loop keeps the state between
pieces as ours does. bfloat16 is torch's autocast, `--autocast` of the command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from turns import compare

from cellwise.tasks.text.generating import Choice, write_ids
from cellwise.tasks.text.network import CharacterNetwork, detached

CHARACTERS, EMBEDDING, HIDDEN, BATCH, LENGTH = 80, 64, 256, 32, 64
MANY = 64
STEPS = 4  # of a training, between two looks at the clock


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


def trainer(model: nn.Module, autocast: bool = False) -> Callable[[], int]:
    """Some steps of AdamW on random text; returns how many characters were read."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(CHARACTERS, (LENGTH + 1, BATCH))
    state: Any = None

    def run() -> int:
        nonlocal state
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits, state = model(ids[:-1], state)
                loss = functional.cross_entropy(logits.flatten(0, 1), ids[1:].flatten())
            state = detached(state)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return STEPS * LENGTH * BATCH

    return run


def plain_writer(model: Plain, samples: int, steps: int) -> Callable[[], int]:
    @torch.no_grad()
    def run() -> int:
        ids, state = torch.ones(1, samples, dtype=torch.long), None
        for _ in range(steps):
            logits, state = model(ids, state)
            ids = torch.multinomial((logits[-1] / 0.7).softmax(-1), 1).T
        return steps * samples

    return run


def our_writer(model: CharacterNetwork, samples: int, steps: int) -> Callable[[], int]:
    def run() -> int:
        written = write_ids(model, torch.tensor([1]), samples, Choice(0.7), 0)
        return sum(len(each) for each in islice(written, steps))

    return run


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
        "training, ours in bfloat16": (trainer(plain), trainer(ours, autocast=True)),
        "training, both in bfloat16": (trainer(plain, autocast=True), trainer(ours, autocast=True)),
        "one text": tuple(each(model, 1, 300) for each, model in ((plain_writer, plain), (our_writer, ours))),
        f"{MANY} texts": tuple(
            each(model, MANY, 20) for each, model in ((plain_writer, plain), (our_writer, ours))
        ),
    }
    print(f"{options.cell}, torch {torch.__version__}")
    for name, runs in sides.items():
        compare(name, runs, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
