"""Translations without a network: the source itself, the nearest training source's target, word by word."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from cellwise.tasks.translate.alignment import MOST_SENTENCES, WordPairs
from cellwise.tasks.translate.near import NearSources
from cellwise.tasks.translate.pairs import TextPairs
from cellwise.tasks.translate.vocabulary import Vocabulary

__all__ = ["WordTable", "simple_translations"]


def simple_translations(
    training: TextPairs, sources: Sequence[str], units: tuple[str, str]
) -> dict[str, list[str]]:
    """Method -> a translation of each source. units: those of sources and targets; words stand for subwords."""
    kept = training.rows(range(min(len(training), MOST_SENTENCES)))
    near = NearSources(kept.sources, units[0])
    table = WordTable(kept, _as_words(units[0]), _as_words(units[1]))
    return {
        "copy": list(sources),
        "translation memory": [_nearest(near, kept, source) for source in sources],
        "IBM model 1": [table.translate(source) for source in sources],
    }


def _nearest(near: NearSources, known: TextPairs, source: str) -> str:
    """The target of the nearest source; of several that are as near, and where none has anything in common, the
    first."""
    found = near.find(source)
    return known.targets[found[0][0] if found else 0]


def _as_words(unit: str) -> str:
    return "words" if unit == "subwords" else unit


def _pieces(texts: Sequence[str], unit: str) -> list[list[Hashable]]:
    return Vocabulary(unit).cut(texts)


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
