"""What a linear tagger sees of a word and of its neighbours: itself, its beginnings and endings, how it is written.

The features of a place are those of the words around it, each by itself. What they say is therefore summed once for
each different word of a text, and looked up for each place."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.tag.vocabulary import Ragged

__all__ = ["EDGE", "OFFSETS", "FeatureIndex", "feature_hash", "features_of", "pattern_of"]

OFFSETS = (-2, -1, 0, 1, 2)  # of the words that are looked at, beside the one that gets the tag
AFFIX = 4  # letters of the longest beginning and ending
LONG = 50_000  # words of a text in which a feature must be there twice
EDGE = ""  # stands for what lies before and behind a sentence
_REPEATED = re.compile(r"(.)\1+")


def pattern_of(word: str) -> str:
    """Capitals as X, small letters as x, digits as 9, each run of them once; other signs as they are.

    >>> [pattern_of(word) for word in ("Tree", "iPad", "1984", "@paul_99", "Köln")]
    ['Xx', 'xXx', '9', '@x_9', 'Xx']
    """
    simple = "".join("X" if c.isupper() else "x" if c.isalpha() else "9" if c.isdigit() else c for c in word)
    return _REPEATED.sub(r"\1", simple)


def features_of(word: str, offset: int) -> Iterator[str]:
    """The features of a word that stands so far from the one that gets the tag."""
    if word == EDGE:
        yield f"{offset} edge"
        return
    lower = word.lower()
    yield f"{offset} lower {lower}"
    if abs(offset) < 2:
        yield f"{offset} pattern {pattern_of(word)}"
        yield f"{offset} ending {lower[-3:]}"
    if offset == 0:
        yield f"word {word}"
        for length in range(1, min(AFFIX, len(lower)) + 1):
            yield f"begins {lower[:length]}"
            yield f"ends {lower[-length:]}"


class FeatureIndex:
    """The features that training has seen, as sorted hashes (N,) int64."""

    def __init__(self, hashes: Tensor) -> None:
        self.hashes = hashes

    @classmethod
    def of(cls, forms: Sequence[str], counts: Sequence[int]) -> FeatureIndex:
        """The features of words that stand so often in a text, at each offset; of a long text without those that are
        there once."""
        least = 1 if sum(counts) < LONG else 2
        seen: Counter[int] = Counter()
        for form, count in zip((*forms, EDGE), (*counts, least), strict=True):
            for offset in OFFSETS:
                for feature in features_of(form, offset):
                    seen[feature_hash(feature)] += count
        kept = [each for each, count in seen.items() if count >= least]
        return cls(torch.from_numpy(np.sort(np.array(kept, np.int64))))

    def __len__(self) -> int:
        return len(self.hashes)

    def rows(self, forms: Sequence[str], offset: int) -> Ragged:
        """The numbers of the features of each word, and behind them those of the edge of a sentence."""
        known = self.hashes.numpy()
        rows = [[feature_hash(feature) for feature in features_of(form, offset)] for form in (*forms, EDGE)]
        lengths = np.array([len(row) for row in rows])
        hashes = np.fromiter((each for row in rows for each in row), np.int64, int(lengths.sum()))
        numbers = np.searchsorted(known, hashes).clip(max=len(known) - 1)
        found = known[numbers] == hashes
        counts = np.bincount(np.repeat(np.arange(len(rows)), lengths)[found], minlength=len(rows))
        return Ragged(torch.from_numpy(numbers[found]), torch.from_numpy(np.r_[0, counts.cumsum()]))


def feature_hash(feature: str) -> int:
    """64 bits, the same on every machine."""
    digest = hashlib.blake2b(feature.encode("utf8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
