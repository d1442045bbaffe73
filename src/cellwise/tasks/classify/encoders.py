"""From examples to what the network reads: values in units of their spread, or numbers of tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify.examples import Channel, Examples
from cellwise.tasks.classify.tokens import SUBWORDS, choose_unit, spans_of, tokens_of
from cellwise.tasks.data.subwords import Subwords

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
    """unit: "words", "characters" or "subwords"; tokens: those that are known, the first stands for all others;
    longest: how many of a text are read, half of them from its end. subwords: the vocabulary of that unit, in place of
    tokens."""

    unit: str
    tokens: tuple[str, ...]
    longest: int
    subwords: Subwords | None = None
    _index: dict[str, int] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, examples: Examples, unit: str | None, min_count: int, longest: int, size: int) -> TextEncoder:
        """The tokens of training texts that occur at least `min_count` times, the most frequent first; or, for
        subwords, a vocabulary of that size."""
        chosen = unit or choose_unit(examples.inputs)
        if chosen == SUBWORDS:
            learned = Subwords.learn(examples.inputs, size, special=(UNKNOWN_TOKEN,))
            return cls(chosen, (), longest, learned)
        counts = Counter(token for text in examples.inputs for token in tokens_of(text, chosen))
        counts.pop(UNKNOWN_TOKEN, None)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        known = [token for token, count in ordered if count >= min_count]
        return cls(chosen, (UNKNOWN_TOKEN, *known[: MOST_TOKENS - 1]), longest)

    def __post_init__(self) -> None:
        self._index.update({token: number for number, token in enumerate(self.tokens)})

    def __len__(self) -> int:
        """Tokens that are known."""
        return len(self.tokens) if self.subwords is None else len(self.subwords)

    def encode(self, text: Any) -> Tensor:
        """The numbers of a text's tokens (T,), int64; 0 for unknown ones."""
        ids = self._ids(text)
        gone = self.left_out(len(ids))
        return torch.tensor([*ids[: gone.start], *ids[gone.stop :]], dtype=torch.long)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where the tokens of a text begin and end in it, those that are not read among them. Where a character is
        several subwords, it is that of the first of them, and the others are empty."""
        if self.subwords is None:
            return spans_of(text, self.unit)
        sizes = [len(self.subwords.bytes_of(token)) for token in self._ids(text)]
        starts = np.cumsum([0, *(len(character.encode("utf8")) for character in text)])
        edges = np.searchsorted(starts, np.cumsum([0, *sizes])).tolist()
        return list(pairwise(edges))

    def _ids(self, text: str) -> list[int]:
        if self.subwords is None:
            return [self._index.get(token, 0) for token in tokens_of(text, self.unit)]
        return self.subwords.encode([text])[0]

    def left_out(self, count: int) -> range:
        """Which of so many tokens are not read: those in the middle."""
        first = min(count, self.longest - self.longest // 2)
        return range(first, max(first, count - self.longest // 2))
