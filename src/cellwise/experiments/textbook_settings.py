"""What the textbook exercise is asked for; without torch, for the help of a command."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cellwise.errors import CellwiseError
from cellwise.experiments.checks import check_at_least

LARGEST_SEED = 2**31 - 1  # as of every task


class TextbookError(CellwiseError, ValueError):
    """A setting of the exercise that cannot be."""


@dataclass(frozen=True)
class Settings:
    """The exercise's numbers; the defaults are the textbook's."""

    cell: Any = "gru"
    input_size: int = 2
    hidden_size: int = 3
    output_size: int = 1
    learning_rate: float = 0.01
    epochs: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(self, TextbookError, input_size=1, hidden_size=1, output_size=1, epochs=1)
        if not 0 < self.learning_rate < math.inf:
            raise TextbookError(
                f"The learning rate must be greater than 0, and finite; got {self.learning_rate:g}."
            )
        if not 0 <= self.seed <= LARGEST_SEED:
            raise TextbookError(f"The seed must be from 0 to {LARGEST_SEED}; got {self.seed}.")
