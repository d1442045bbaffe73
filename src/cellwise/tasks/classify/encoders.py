"""From examples to what the network reads: values in units of their spread, or numbers of tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify.examples import Channel, Examples
from cellwise.tasks.classify.tokens import choose_unit, tokens_of

__all__ = ["SeriesEncoder", "TextEncoder"]

MOST_TOKENS = 50_000
UNKNOWN_TOKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, eq=False)
class SeriesEncoder:
    """Channels and, for each of the D numbers of a step, mean (D,) and spread (D,) over the training, float64."""

    channels: tuple[Channel, ...]
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, examples: Examples) -> SeriesEncoder:
        """Measured on training series. A number that never changes has the spread 1."""
        count = sum(map(len, examples.inputs))
        mean = sum(values.sum(axis=0) for values in examples.inputs) / count
        square = sum(((values - mean) ** 2).sum(axis=0) for values in examples.inputs) / count
        spread = np.sqrt(square)
        return cls(examples.channels, mean, np.where(spread > 1e-12 * np.abs(mean), spread, 1.0))

    @property
    def width(self) -> int:
        """Numbers in a step."""
        return len(self.mean)

    def encode(self, values: Any) -> Tensor:
        """One series (T, D) as the network reads it, float32."""
        return torch.from_numpy((values - self.mean) / self.spread).float()


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """unit: "words" or "characters"; tokens: those that are known, the first stands for all others; longest: how many
    of a text are read, half of them from its end."""

    unit: str
    tokens: tuple[str, ...]
    longest: int
    _index: dict[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, examples: Examples, unit: str | None, min_count: int, longest: int) -> TextEncoder:
        """The tokens of training texts that occur at least `min_count` times, the most frequent first."""
        chosen = unit or choose_unit(examples.inputs)
        counts = Counter(token for text in examples.inputs for token in tokens_of(text, chosen))
        counts.pop(UNKNOWN_TOKEN, None)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        known = [token for token, count in ordered if count >= min_count]
        return cls(chosen, (UNKNOWN_TOKEN, *known[: MOST_TOKENS - 1]), longest)

    def __post_init__(self) -> None:
        self._index.update({token: number for number, token in enumerate(self.tokens)})

    def encode(self, text: Any) -> Tensor:
        """The numbers of a text's tokens (T,), int64; 0 for unknown ones."""
        tokens = tokens_of(text, self.unit)
        gone = self.left_out(len(tokens))
        kept = (*tokens[: gone.start], *tokens[gone.stop :])
        return torch.tensor([self._index.get(token, 0) for token in kept], dtype=torch.long)

    def left_out(self, count: int) -> range:
        """Which of so many tokens are not read: those in the middle."""
        first = min(count, self.longest - self.longest // 2)
        return range(first, max(first, count - self.longest // 2))
