"""What a tagger knows of its language: words, letters and tags; and sentences as numbers."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["SHAPES", "UNKNOWN_WORD", "Forms", "Lexicon", "Ragged", "least_count", "shape_of"]

UNKNOWN_WORD = 0  # index of every word, and of every letter, that training has not seen
LONGEST = 24  # letters of a word that are read; of a longer one the first and the last half of them
SHAPES = 8
_DIGITS = re.compile(r"\d")


def least_count(counts: Iterable[int], most: int) -> int:
    """How often a word must be seen so that at most so many words are.

    >>> least_count([5, 2, 1, 1], most=4), least_count([5, 2, 1, 1], most=3), least_count([5, 2, 1, 1], most=1)
    (1, 2, 3)
    """
    ranked = sorted(counts, reverse=True)
    return ranked[most] + 1 if len(ranked) > most else 1


@dataclass(frozen=True)
class Lexicon:
    """words, with how often training has seen each; letters; tags. All sorted: equal data give equal ones.

    least: words seen less often have no embedding of their own, and are read by their letters alone."""

    words: tuple[str, ...]
    counts: tuple[int, ...]
    letters: tuple[str, ...]
    tags: tuple[str, ...]
    least: int = 1

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]], tags: Iterable[str], most: int) -> Lexicon:
        """Of the training sentences, and the tags there are; at most so many words have an embedding."""
        counts: Counter[str] = Counter()
        for sentence in sentences:
            counts.update(sentence)
        words = tuple(sorted(counts))
        letters = tuple(sorted({letter for word in words for letter in word}))
        numbers = tuple(counts[word] for word in words)
        return cls(words, numbers, letters, tuple(sorted(set(tags))), least_count(numbers, most))

    @cached_property
    def embedded(self) -> tuple[int, ...]:
        """How often training has seen each word with an embedding."""
        return tuple(count for count in self.counts if count >= self.least)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.words)

    @cached_property
    def _word_index(self) -> dict[str, int]:
        frequent = (word for word, count in zip(self.words, self.counts, strict=True) if count >= self.least)
        return {word: number for number, word in enumerate(frequent, 1)}

    @cached_property
    def _letter_index(self) -> dict[str, int]:
        return {letter: number for number, letter in enumerate(self.letters, 1)}

    @cached_property
    def _tag_index(self) -> dict[str, int]:
        return {tag: number for number, tag in enumerate(self.tags)}

    def knows(self, word: str) -> bool:
        """Whether training has seen a word, letter by letter."""
        return word in self._known

    def word_id(self, word: str) -> int:
        """Index from 1; a word without one has that of its lower case, if that has one, else UNKNOWN_WORD."""
        index = self._word_index
        return index.get(word) or index.get(word.lower(), UNKNOWN_WORD)

    def letter_ids(self, word: str) -> list[int]:
        """Index of each letter."""
        if len(word) > LONGEST:
            word = word[: LONGEST // 2] + word[-LONGEST // 2 :]
        return [self._letter_index.get(letter, UNKNOWN_WORD) for letter in word]

    def tag_ids(self, tags: Sequence[str]) -> list[int]:
        """Index of each tag; -1 for one that training has not seen."""
        return [self._tag_index.get(tag, -1) for tag in tags]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths in one tensor: `values` (N,) of all, `starts` (R + 1,) of each and the end."""

    values: Tensor
    starts: Tensor

    @classmethod
    def of(cls, rows: Iterable[Iterable[int]]) -> Ragged:
        """Rows of whole numbers below 2 ** 31."""
        values, starts = array("i"), array("q", [0])
        for row in rows:
            values.extend(row)
            starts.append(len(values))
        numbers = torch.frombuffer(values, dtype=torch.int32) if values else torch.zeros(0, dtype=torch.int32)
        return cls(numbers, torch.frombuffer(starts, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def lengths(self) -> Tensor:
        """(R,) int64."""
        return self.starts.diff()

    def padded(self, rows: Tensor, fill: int) -> Tensor:
        """These rows as columns (T, B), int64; `fill` behind the end of each."""
        lengths = self.lengths[rows]
        steps = torch.arange(int(lengths.max()) if len(rows) else 0)[:, None]
        index = (self.starts[rows] + steps).clamp(max=max(0, len(self.values) - 1))
        return self.values[index].long().masked_fill(steps >= lengths, fill)


class Forms:
    """The different words of some sentences, each once: words (F,), shapes (F,), letters (F rows); sentences, as the
    number of each word's form."""

    def __init__(self, lexicon: Lexicon, sentences: Iterable[Sequence[str]]) -> None:
        index: dict[str, int] = {}
        self.sentences = Ragged.of(
            [index.setdefault(word, len(index)) for word in sentence] for sentence in sentences
        )
        self.forms = list(index)
        self.words = torch.tensor([lexicon.word_id(form) for form in self.forms])
        self.shapes = torch.tensor([shape_of(form) for form in self.forms])
        self.letters = Ragged.of(map(lexicon.letter_ids, self.forms))

    def __len__(self) -> int:
        return len(self.words)

    def by_letters(self, forms: Tensor) -> Tensor:
        """The order of some forms from long to short: kernels are fastest so."""
        return self.letters.lengths[forms].argsort(descending=True, stable=True)

    def letters_of(self, forms: Tensor) -> tuple[Tensor, Tensor]:
        """Letters (L, F) and lengths (F,) of some forms."""
        return self.letters.padded(forms, UNKNOWN_WORD), self.letters.lengths[forms]


def shape_of(word: str) -> int:
    """How a word is written, 0 to SHAPES - 1: lower case, a capital first, capitals, mixed, digits, digits among
    others, no letters at all, letters without case.

    >>> [shape_of(word) for word in ("tree", "Tree", "TREE", "iPad", "1984", "A4", "...", "\u6a39")]
    [0, 1, 2, 3, 4, 5, 6, 7]
    """
    if word.isdigit():
        return 4
    if _DIGITS.search(word):
        return 5
    if not any(letter.isalpha() for letter in word):
        return 6
    if word.islower():
        return 0
    if word.isupper():
        return 2 if len(word) > 1 else 1
    if word[:1].isupper() and not any(letter.isupper() for letter in word[1:]):
        return 1
    return 3 if any(letter.isupper() for letter in word) else 7
