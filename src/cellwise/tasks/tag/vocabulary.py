"""What a tagger knows of its language: words, letters and tags; and sentences as numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["SHAPES", "UNKNOWN_WORD", "Forms", "Lexicon", "shape_of"]

UNKNOWN_WORD = 0  # index of every word, and of every letter, that training has not seen
LONGEST = 24  # letters of a word that are read; of a longer one the first and the last half of them
SHAPES = 8
_DIGITS = re.compile(r"\d")


@dataclass(frozen=True)
class Lexicon:
    """words, with how often training has seen each; letters; tags. All sorted: equal data give equal ones."""

    words: tuple[str, ...]
    counts: tuple[int, ...]
    letters: tuple[str, ...]
    tags: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Iterable[Sequence[str]], tags: Iterable[str]) -> Lexicon:
        """Of the training sentences, and the tags there are."""
        counts = Counter(word for sentence in sentences for word in sentence)
        words = tuple(sorted(counts))
        letters = tuple(sorted({letter for word in words for letter in word}))
        return cls(words, tuple(counts[word] for word in words), letters, tuple(sorted(set(tags))))

    @cached_property
    def _word_index(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, 1)}

    @cached_property
    def _letter_index(self) -> dict[str, int]:
        return {letter: number for number, letter in enumerate(self.letters, 1)}

    @cached_property
    def _tag_index(self) -> dict[str, int]:
        return {tag: number for number, tag in enumerate(self.tags)}

    def knows(self, word: str) -> bool:
        """Whether training has seen a word, letter by letter."""
        return word in self._word_index

    def word_id(self, word: str) -> int:
        """Index from 1; an unseen word has that of its lower case, if that was seen, else UNKNOWN_WORD."""
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


class Forms:
    """The different words of some sentences, each once: words (F,), shapes (F,), letters (F, L), lengths (F,)."""

    def __init__(self, lexicon: Lexicon, sentences: Iterable[Sequence[str]]) -> None:
        index: dict[str, int] = {}
        self.sentences = [
            torch.tensor([index.setdefault(word, len(index)) for word in sentence]) for sentence in sentences
        ]
        forms = list(index)
        letters = [lexicon.letter_ids(form) for form in forms]
        self.words = torch.tensor([lexicon.word_id(form) for form in forms])
        self.shapes = torch.tensor([shape_of(form) for form in forms])
        self.lengths = torch.tensor([len(each) for each in letters])
        self.letters = torch.zeros(len(forms), int(self.lengths.max()) if forms else 1, dtype=torch.long)
        for row, each in enumerate(letters):
            self.letters[row, : len(each)] = torch.tensor(each)

    def __len__(self) -> int:
        return len(self.words)

    def letters_of(self, forms: Tensor) -> tuple[Tensor, Tensor]:
        """Letters (L, F) and lengths (F,) of some forms."""
        lengths = self.lengths[forms]
        return self.letters[forms, : int(lengths.max())].T.contiguous(), lengths


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
