"""Which word of the source a word of the target belongs to, from counting alone: model 1 of Brown et al. (1993).

The probability of a target word given the source word that it is aligned to is learned by expectation maximisation,
from all pairs of words in pairs of sentences. The network's attention may be told to agree (Chen et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["MOST_SENTENCES", "WordPairs"]

MOST_SENTENCES = 50_000  # that are counted
MOST_WORDS = 60  # of a sentence that is counted
ROUNDS = 5
LEAST = 0.01  # a pair of words that is less likely is forgotten


@dataclass(frozen=True, eq=False)
class WordPairs:
    """left, right (P,): pairs of words of sources and targets, in ascending order; chances (P,): the probability of the
    right word given the left one; counts (P,): how often the two are expected to belong together, and totals (V,): a
    left word to any. width: above every right word."""

    left: np.ndarray
    right: np.ndarray
    chances: np.ndarray
    counts: np.ndarray
    totals: np.ndarray
    width: int

    @classmethod
    def learn(cls, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> WordPairs:
        """From the words of sentences, as numbers from 0 on."""
        lefts, rights, groups, count = (
            [np.zeros(0, np.int64)],
            [np.zeros(0, np.int64)],
            [np.zeros(0, np.int64)],
            0,
        )
        for source, target in zip(sources[:MOST_SENTENCES], targets[:MOST_SENTENCES], strict=True):
            if max(len(source), len(target)) <= MOST_WORDS:
                lefts.append(np.tile(np.asarray(source, np.int64), len(target)))
                rights.append(np.repeat(np.asarray(target, np.int64), len(source)))
                groups.append(np.repeat(np.arange(count, count + len(target)), len(source)))
                count += len(target)
        left, right, group = (np.concatenate(each) for each in (lefts, rights, groups))
        width = int(right.max(initial=0)) + 1
        pairs, place = np.unique(left * width + right, return_inverse=True)
        first = pairs // width
        chances = np.ones(len(pairs))

        def expected() -> np.ndarray:
            each = chances[place]
            return np.bincount(place, each / np.bincount(group, each, count)[group], len(pairs))

        for _ in range(ROUNDS if len(pairs) else 0):
            counts = expected()
            chances = counts / np.bincount(first, counts)[first]
        counts, kept = expected(), chances >= LEAST
        totals = np.bincount(first, counts)
        return cls(first[kept], pairs[kept] % width, chances[kept], counts[kept], totals, width)

    @cached_property
    def _keys(self) -> np.ndarray:
        """A pair as one number, in ascending order."""
        return self.left * self.width + self.right

    def best(self) -> dict[int, int]:
        """The likeliest right word of each left one."""
        order = np.lexsort((self.chances, self.left))  # the likeliest of each word is its last
        last = np.append(self.left[order][1:] != self.left[order][:-1], True)[: len(order)]
        return dict(zip(self.left[order][last].tolist(), self.right[order][last].tolist(), strict=True))

    def below(self, width: int) -> WordPairs:
        """Of right words below a number alone."""
        kept = self.right < width
        left, right, chances, counts = (x[kept] for x in (self.left, self.right, self.chances, self.counts))
        return WordPairs(left, right, chances, counts, self.totals, self.width)

    def likeliest(self, count: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest right words of the left words 0 to count - 1, and their probabilities: two (count, most), the
        likeliest first, zeros where there are no more."""
        ids, chances = np.zeros((count, most), np.int64), np.zeros((count, most))
        order = np.lexsort((-self.chances, self.left))
        left = self.left[order]
        rank = np.arange(len(left)) - np.searchsorted(left, left)  # among those of the same left word
        kept = (rank < most) & (left < count)
        ids[left[kept], rank[kept]] = self.right[order][kept]
        chances[left[kept], rank[kept]] = self.chances[order][kept]
        return ids, chances

    def aligned(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """How likely each word of a target belongs to each of the source: sources (S, B) and targets (T, B) give
        (T, S, B), which sums to one over S, or is zero where no pair is known."""
        return self._shares(self._found(sources, targets, self.chances))

    def by_others(self, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The probability of each target word given each of the source (T, S, B), as all other pairs of sentences have
        it: what this pair adds to the counts is taken away. Of words that stand in no other pair nothing is known."""
        if not len(self.left):
            return np.zeros((len(targets), *sources.shape))
        shares = self._shares(self._found(sources, targets, self.chances))
        known = sources.clip(max=len(self.totals) - 1)
        totals = np.where(sources < len(self.totals), self.totals[known], 0.0) - shares.sum(0)
        counts = self._found(sources, targets, self.counts) - shares
        return counts.clip(min=0) / totals.clip(min=1)

    def _found(self, sources: np.ndarray, targets: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The values (P,) of the pairs that stand there (T, S, B), 0 where no pair is known."""
        if not len(self.left):
            return np.zeros((len(targets), *sources.shape))
        asked = sources[None] * self.width + targets[:, None]
        known = self._keys
        place = np.searchsorted(known, asked).clip(max=len(known) - 1)
        return np.where((known[place] == asked) & (targets[:, None] < self.width), values[place], 0.0)

    @staticmethod
    def _shares(found: np.ndarray) -> np.ndarray:
        total = found.sum(1, keepdims=True)
        return np.divide(found, total, out=np.zeros_like(found), where=total > 0)
