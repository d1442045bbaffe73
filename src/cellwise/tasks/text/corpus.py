"""The vocabulary, the split of a text, and the bundled text."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr

__all__ = ["UNKNOWN", "Parts", "Vocabulary", "bundled_text", "joined", "split_text"]

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for every character that training has not seen
SHORTEST = 1000  # characters; with fewer there is nothing to hold out
HELD_OUT = 0.05  # of the text for the validation, and as much again that training never looks at
FOLDER = Path(__file__).parent / "data"


def bundled_text() -> str:
    """The first 51 chapters of Moby-Dick (Melville 1851), a paragraph a line, in ASCII. Public domain.

    >>> bundled_text()[21:37]
    'Call me Ishmael.'
    """
    return gzip.decompress((FOLDER / "moby_dick_opening.txt.gz").read_bytes()).decode("ascii")


@dataclass(frozen=True)
class Vocabulary:
    """The characters that a model knows, `UNKNOWN` first.

    >>> vocabulary = Vocabulary.of("abba")
    >>> vocabulary.encode("abc").tolist(), vocabulary.unknown("abcdc")
    ([1, 2, 0], {'c': 2, 'd': 1})
    """

    characters: str

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """All characters of a text."""
        return cls(UNKNOWN + "".join(sorted(set(text) - {UNKNOWN})))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> Tensor:
        """Index of each character, int64 (T,); 0 for unknown ones."""
        index = {character: number for number, character in enumerate(self.characters)}
        return torch.tensor([index.get(character, 0) for character in text], dtype=torch.long)

    def unknown(self, text: str) -> dict[str, int]:
        """The unknown characters of a text with their counts, the most frequent first."""
        known = set(self.characters)
        return dict(Counter(character for character in text if character not in known).most_common())


def joined(texts: object) -> str:
    """A text, or several joined by newlines. Raises DataError for anything else.

    >>> joined(["One.", "Two."])
    'One.\\nTwo.'
    """
    if isinstance(texts, str):
        return texts
    if isinstance(texts, Iterable):
        several = list(texts)
        if all(isinstance(each, str) for each in several):
            return "\n".join(several)
    raise DataError(f"a text, or a list of texts, is needed, not {short_repr(texts)}")


@dataclass(frozen=True)
class Parts:
    """The parts of a text, in order: for training, for early stopping, and for the test."""

    training: str
    validation: str
    held_out: str


def split_text(text: str) -> Parts:
    """Split a text into its parts. Raises DataError if it is too short."""
    if len(text) < SHORTEST:
        raise DataError(
            f"training needs a text of at least {SHORTEST:,} characters; this one has {len(text):,}"
        )
    size = int(len(text) * HELD_OUT)
    return Parts(text[: -2 * size], text[-2 * size : -size], text[-size:])
