"""Word and character error rates: the fewest substitutions, insertions and deletions (Levenshtein 1966)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Errors", "count_errors", "edits", "measure_transcripts"]


@dataclass(frozen=True)
class Errors:
    """The edits from references to what was recognised, and how many units the references have."""

    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0
    total: int = 0

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.total + other.total,
        )

    @property
    def count(self) -> int:
        """All edits."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Edits per unit of the references: 0 is perfect, and more than 1 is possible; NaN without any unit."""
        return self.count / self.total if self.total else float("nan")


def edits(reference: Sequence[str], said: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Pairs of units, in order: (a, b) with a != b is a substitution, (a, None) a deletion, (None, b) an insertion.

    >>> edits("abcd", "axbc")
    [('a', 'a'), (None, 'x'), ('b', 'b'), ('c', 'c'), ('d', None)]
    """
    numbers = {unit: i for i, unit in enumerate(dict.fromkeys((*reference, *said)))}
    codes = np.array([numbers[unit] for unit in said], dtype=np.int64)
    across = np.arange(len(said) + 1)
    costs = np.empty((len(reference) + 1, len(said) + 1), dtype=np.int64)
    costs[0] = across
    for i, unit in enumerate(reference, 1):
        row = np.concatenate(
            ([i], np.minimum(costs[i - 1, :-1] + (codes != numbers[unit]), costs[i - 1, 1:] + 1))
        )
        costs[i] = np.minimum.accumulate(row - across) + across  # insertions, along the row
    pairs: list[tuple[str | None, str | None]] = []
    i, j = len(reference), len(said)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (reference[i - 1] != said[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((reference[i], said[j]))
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            pairs.append((None, said[j]))
    return pairs[::-1]


def count_errors(reference: Sequence[str], said: Sequence[str]) -> Errors:
    """The edits of one pair."""
    kinds = Counter(
        "insertions" if a is None else "deletions" if b is None else "substitutions"
        for a, b in edits(reference, said)
        if a != b
    )
    return Errors(total=len(reference), **kinds)


def measure_transcripts(references: Iterable[str], said: Iterable[str]) -> tuple[Errors, Errors]:
    """Errors of words, and of characters (spaces between words count), over all pairs of texts."""
    words = characters = Errors()
    for reference, own in zip(references, said, strict=True):
        words += count_errors(reference.split(), own.split())
        characters += count_errors(reference, own)
    return words, characters
