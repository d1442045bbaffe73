"""Which sources are most alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

import numpy as np

from cellwise.tasks.translate.vocabulary import Vocabulary

__all__ = ["NearSources"]


class NearSources:
    """Finds the sources that are most alike: cosine of words and pairs of words, weighted by how rare they are (inverse
    document frequency, Sparck Jones 1972). unit: what texts are cut into; words stand for subwords."""

    def __init__(self, sources: Sequence[str], unit: str) -> None:
        self._vocabulary = Vocabulary("words" if unit == "subwords" else unit)
        rows = [_with_pairs(row) for row in self._vocabulary.cut(sources)]
        counts = Counter(feature for row in rows for feature in set(row))
        self._weights = {feature: math.log(len(rows) / count) for feature, count in counts.items()}
        self._unknown = math.log(len(rows) + 1)
        postings: dict[Hashable, list[int]] = {}
        lengths = np.zeros(len(rows))
        for number, row in enumerate(rows):
            for feature in set(row):
                postings.setdefault(feature, []).append(number)
                lengths[number] += self._weights[feature] ** 2
        self._postings = {feature: np.array(found) for feature, found in postings.items()}
        self._lengths = np.sqrt(lengths) + 1e-9

    def find(self, source: str, count: int = 1) -> list[tuple[int, float]]:
        """The numbers of those that are most alike, at most `count`, and how much (0 to 1), the best first, of equals
        the first one; without those that have nothing in common."""
        scores, own = np.zeros(len(self._lengths)), 0.0
        for feature in set(_with_pairs(self._vocabulary.cut([source])[0])):
            weight = self._weights.get(feature, self._unknown) ** 2
            own += weight
            if feature in self._postings:
                scores[self._postings[feature]] += weight
        scores /= self._lengths * (math.sqrt(own) + 1e-9)
        count = min(count, len(scores))
        some = np.flatnonzero(scores >= max(np.partition(scores, -count)[-count], 1e-12))
        best = some[np.argsort(-scores[some], kind="stable")][:count]
        return [(int(number), float(scores[number])) for number in best]


def _with_pairs(row: Sequence[Hashable]) -> list[Hashable]:
    return [*row, *pairwise(row)]
