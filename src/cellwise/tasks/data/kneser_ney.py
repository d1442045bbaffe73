"""An interpolated Kneser-Ney model of characters or words: what a text costs, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["KneserNey"]

ORDER = 7
CODES = 2**62  # an n-gram is one whole number below this


@dataclass(frozen=True)
class _Counts:
    """N-grams of one order as sorted numbers with their discounted counts; contexts with the sum of the counts of what
    follows, and of the discounts."""

    grams: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    discounts: np.ndarray

    @classmethod
    def of(cls, grams: np.ndarray, counts: np.ndarray, size: int) -> _Counts:
        """From sorted n-grams over `size` characters."""
        contexts, first = np.unique(grams // size, return_index=True)
        taken = _discounts(counts)[np.minimum(counts, 3)]
        totals = np.add.reduceat(counts, first)
        return cls(grams, counts - taken, contexts, totals, np.add.reduceat(taken, first))

    def interpolated(self, grams: np.ndarray, size: int, lower: np.ndarray) -> np.ndarray:
        """The probability of the last character of each n-gram, with those of the order below."""
        count = _looked_up(self.grams, self.counts, grams)
        total = _looked_up(self.contexts, self.totals, grams // size)
        rest = _looked_up(self.contexts, self.discounts, grams // size)
        return np.where(total > 0, (count + rest * lower) / np.maximum(total, 1), lower)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from counts of 0, 1, 2, and 3 or more (Chen, Goodman 1999, equation 26)."""
    n1, n2, n3, n4 = (max(1, int((counts == n).sum())) for n in range(1, 5))
    share = n1 / (n1 + 2 * n2)
    taken = [0.0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3]
    # With few counts, or phrases that come again and again, the estimates may leave their range. Less than that of a
    # single count, which is above 0, is never taken: else nothing new could follow a context of frequent n-grams.
    return np.array([min(max(each, min(n, 1) * taken[1]), 0.95 * n) for n, each in enumerate(taken)])


class KneserNey:
    """An interpolated n-gram model with three discounts for each order (Kneser, Ney 1995; Chen, Goodman 1999).

    ids: the training text (T,), numbers from 0 to size - 1. order: n; smaller where n-grams of so many different
    characters fit no 64 bits."""

    def __init__(self, ids: np.ndarray, size: int, order: int = ORDER) -> None:
        while order > 1 and size**order > CODES:
            order -= 1
        self.size, self.order = size, min(order, len(ids))
        #: The n-grams of the highest order as numbers, ascending, and how often each stands in the text; two (N,).
        self.grams = np.unique(_grams(ids, self.order, size), return_counts=True)

    @classmethod
    def of_grams(cls, grams: np.ndarray, counts: np.ndarray, size: int, order: int) -> KneserNey:
        """From what another has as `grams`. Raises ValueError for what cannot be that."""
        if (
            order < 1
            or size**order > CODES
            or grams.ndim != 1
            or grams.shape != counts.shape
            or not len(grams)
        ):
            raise ValueError(f"there are no such n-grams of the order {order}")
        if grams[0] < 0 or grams[-1] >= size**order or (np.diff(grams) <= 0).any() or counts.min() < 1:
            raise ValueError("n-grams or their counts are not in order")
        made = cls.__new__(cls)
        made.size, made.order, made.grams = size, order, (grams, counts.astype(np.int64))
        return made

    @cached_property
    def _orders(self) -> list[_Counts]:
        found, counts = self.grams
        made = [_Counts.of(found, counts, self.size)]
        for n in range(self.order - 1, 0, -1):
            # Of the lower orders it counts how many different characters stand before an n-gram, not how often it is.
            found, counts = np.unique(found % self.size**n, return_counts=True)
            made.insert(0, _Counts.of(found, counts, self.size))
        return made

    def bits(self, ids: np.ndarray) -> np.ndarray:
        """Bits of each character of a text (T,) but the first, float64 (T - 1,); infinite for what cannot be."""
        chances = np.full(len(ids), 1 / self.size)
        for n, counts in enumerate(self._orders, 1):
            if len(ids) < n:
                break
            lower = chances[n - 1 :]
            chances[n - 1 :] = counts.interpolated(_grams(ids, n, self.size), self.size, lower)
        with np.errstate(divide="ignore"):
            return -np.log2(chances[1:])

    def following(self, context: np.ndarray) -> np.ndarray:
        """The probability of each character behind a context (C,), float64 (size,); sums to 1."""
        chances = np.full(self.size, 1 / self.size)
        for n, counts in enumerate(self._orders, 1):
            if len(context) < n - 1:
                break
            code = 0
            for each in context[len(context) - n + 1 :]:
                code = code * self.size + int(each)
            chances = counts.interpolated(code * self.size + np.arange(self.size), self.size, chances)
        return chances

    def share(self, context: Sequence[int], number: int) -> tuple[float, float]:
        """A probability as a + b * p, where p is what a number would have without any count: 1 / size, or what
        another distribution over all numbers says. Returns (a, b) for one number behind a context."""
        made = np.array([0.0, 1.0])
        for n, counts in enumerate(self._orders, 1):
            if len(context) < n - 1:
                break
            code = 0
            for each in (*context[len(context) - n + 1 :], number):
                code = code * self.size + int(each)
            made = counts.interpolated(np.array([code, code]), self.size, made)
        return float(made[0]), float(made[1] - made[0])


def _grams(ids: np.ndarray, n: int, size: int) -> np.ndarray:
    """All n-grams of a text (T - n + 1,), each as one number."""
    count = len(ids) - n + 1
    codes = np.zeros(count, dtype=np.int64)
    for i in range(n):
        codes = codes * size + ids[i : i + count]
    return codes


def _looked_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key; 0 for one that is not there."""
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[found] == wanted, values[found], 0)
