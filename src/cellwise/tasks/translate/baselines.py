"""Translations without a network: the source itself, the nearest training source's target, word by word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from cellwise.tasks.translate.alignment import MOST_SENTENCES, WordPairs
from cellwise.tasks.translate.pairs import TextPairs
from cellwise.tasks.translate.vocabulary import Vocabulary

__all__ = ["TranslationMemory", "WordTable", "simple_translations"]


def simple_translations(
    training: TextPairs, sources: Sequence[str], units: tuple[str, str]
) -> dict[str, list[str]]:
    """Method -> a translation of each source. units: those of sources and targets; words stand for subwords."""
    kept = training.rows(range(min(len(training), MOST_SENTENCES)))
    memory = TranslationMemory(kept, _as_words(units[0]))
    table = WordTable(kept, _as_words(units[0]), _as_words(units[1]))
    return {
        "copy": list(sources),
        "translation memory": [memory.translate(source) for source in sources],
        "IBM model 1": [table.translate(source) for source in sources],
    }


def _as_words(unit: str) -> str:
    return "words" if unit == "subwords" else unit


def _pieces(texts: Sequence[str], unit: str) -> list[list[Hashable]]:
    return Vocabulary(unit).cut(texts)


class TranslationMemory:
    """The target of the training source that is most alike: cosine of words and pairs of words, weighted by how rare
    they are (inverse document frequency, Sparck Jones 1972)."""

    def __init__(self, pairs: TextPairs, unit: str) -> None:
        self._pairs, self._unit = pairs, unit
        rows = [_with_pairs(row) for row in _pieces(pairs.sources, unit)]
        counts = Counter(feature for row in rows for feature in set(row))
        self._weights = {feature: math.log(len(rows) / count) for feature, count in counts.items()}
        postings: dict[Hashable, list[int]] = {}
        lengths = np.zeros(len(rows))
        for number, row in enumerate(rows):
            for feature in set(row):
                postings.setdefault(feature, []).append(number)
                lengths[number] += self._weights[feature] ** 2
        self._postings = {feature: np.array(found) for feature, found in postings.items()}
        self._lengths = np.sqrt(lengths) + 1e-9

    def translate(self, source: str) -> str:
        """The target of the nearest source; the first of several that are as near."""
        scores = np.zeros(len(self._pairs))
        for feature in set(_with_pairs(_pieces([source], self._unit)[0])):
            if feature in self._postings:
                scores[self._postings[feature]] += self._weights[feature] ** 2
        return self._pairs.targets[int((scores / self._lengths).argmax())]


def _with_pairs(row: Sequence[Hashable]) -> list[Hashable]:
    return [*row, *pairwise(row)]


class WordTable:
    """Each word of the source by its likeliest translation, in the order of the source."""

    def __init__(self, pairs: TextPairs, source_unit: str, target_unit: str) -> None:
        self._unit, self._target = source_unit, Vocabulary(target_unit)
        self._known: dict[Hashable, int] = {}
        words: dict[Hashable, int] = {}
        self._best = WordPairs.learn(
            [_numbered(row, self._known) for row in _pieces(pairs.sources, source_unit)],
            [_numbered(row, words) for row in _pieces(pairs.targets, target_unit)],
        ).best()
        self._words = list(words)

    def translate(self, source: str) -> str:
        """Word by word; a word that training has not seen stays as it is."""
        made = []
        for word in _pieces([source], self._unit)[0]:
            best = self._best.get(self._known.get(word, -1))
            made.append(word if best is None else self._words[best])
        return self._target.text(made)


def _numbered(row: Sequence[Hashable], known: dict[Hashable, int]) -> list[int]:
    return [known.setdefault(word, len(known)) for word in row]
