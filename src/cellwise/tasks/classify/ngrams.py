"""A linear model on n-grams of words and letters: what a person would pick for texts instead of a recurrent network.

Features are n-grams of words, and of the letters within a word (Joulin et al. 2017 for both, hashed). Their weight is
the inverse document frequency times the largest log-count ratio of a class (Wang and Manning 2012); rows have length 1;
multinomial logistic regression decides. It is the baseline of a report, and what the network is blended with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify.linear import Rows, fit_logistic
from cellwise.tasks.classify.tokens import WORDS, tokens_of

__all__ = ["NgramModel"]

LETTERS = (3, 5)  # letters of the shortest and the longest n-gram within a word, whose ends are marked
STRENGTH = 3.0
FEW = 100  # texts, up to which an n-gram that occurs once is a feature
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits without pattern: the golden ratio
LONGEST_WORD = 40  # letters; what is longer is no word and would have endless n-grams


@dataclass(frozen=True, eq=False)
class NgramModel:
    """unit, size: tokens and how many the longest n-gram has. features (F,): sorted hashes of n-grams as int64; scale
    (F,): the weight of each in a row; weights (F, C) and bias (C,): of the regression, float32."""

    unit: str
    size: int
    features: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor

    name = "linear model on n-grams"

    @classmethod
    def fit(cls, texts: Sequence[str], labels: np.ndarray, classes: int, unit: str, size: int) -> NgramModel:
        """Fit to texts of classes (N,) from 0 to `classes` - 1."""
        hashed = _hashed(texts, unit, size)
        found, column, counts = np.unique(hashed.hashes, return_inverse=True, return_counts=True)
        kept = counts >= (2 if len(texts) > FEW else 1)
        features = found[kept]
        scale = _scale(column, counts, hashed.rows, labels, classes, len(texts))[kept].astype(np.float32)
        parts = torch.from_numpy(features.view(np.int64)), torch.from_numpy(scale)
        model = cls(unit, size, *parts, torch.zeros(len(features), classes), torch.zeros(classes))
        fitted = fit_logistic(model._rows_of(hashed), torch.from_numpy(labels), classes, STRENGTH)
        return cls(unit, size, *parts, *fitted)

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits (N, C) float32 of texts."""
        return self._rows_of(_hashed(texts, self.unit, self.size)).matrix() @ self.weights + self.bias

    def _rows_of(self, texts: _Hashed) -> Rows:
        """Sparse rows of length 1."""
        features = self.features.numpy().view(np.uint64)
        column = np.searchsorted(features, texts.hashes)
        known = column < len(features)
        known[known] = features[column[known]] == texts.hashes[known]
        column, row = column[known], texts.rows[known]
        value = self.scale.numpy()[column].astype(np.float64)
        norm = np.sqrt(np.bincount(row, value**2, len(texts)))
        value /= np.maximum(norm, 1e-12)[row]
        bounds = np.r_[0, np.cumsum(np.bincount(row, minlength=len(texts)))]
        return Rows(column, value, bounds, len(features))

    def tensors(self) -> dict[str, Tensor]:
        """What a run folder holds of it."""
        return {
            "ngrams/features": self.features,
            "ngrams/scale": self.scale,
            "ngrams/weights": self.weights,
            "ngrams/bias": self.bias,
        }

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], unit: str, size: int, classes: int) -> NgramModel:
        """The inverse of `tensors`. Raises KeyError or ValueError if they are none."""
        features, scale, weights, bias = (
            tensors[f"ngrams/{name}"] for name in ("features", "scale", "weights", "bias")
        )
        count = len(features)
        shapes = [tuple(each.shape) for each in (features, scale, weights, bias)]
        types = [each.dtype for each in (features, scale, weights, bias)]
        if shapes != [(count,), (count,), (count, classes), (classes,)] or types != [torch.int64] + 3 * [
            torch.float32
        ]:
            raise ValueError("its n-grams are none")
        hashes = features.numpy().view(np.uint64)
        if (count and (np.diff(hashes) == 0).any()) or (hashes[1:] < hashes[:-1]).any():
            raise ValueError("its n-grams are not in order")
        return cls(unit, size, features, scale, weights, bias)


@dataclass(frozen=True, eq=False)
class _Hashed:
    """The n-grams of some texts: hashes (E,) uint64, one text after another, each once a text, and how many each text
    has (N,)."""

    hashes: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def rows(self) -> np.ndarray:
        """The text of each entry (E,)."""
        return np.repeat(np.arange(len(self)), self.lengths)


def _hashed(texts: Sequence[str], unit: str, size: int) -> _Hashed:
    parts = [np.unique(np.concatenate(list(_of_text(tokens_of(text, unit), unit, size)))) for text in texts]
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return _Hashed(np.concatenate([*parts, np.zeros(0, np.uint64)]), lengths)


def _of_text(tokens: Sequence[str], unit: str, size: int) -> Iterator[np.ndarray]:
    one = np.array([_hash(token) for token in tokens], dtype=np.uint64)
    yield one
    longest = size if unit == WORDS else max(size, LETTERS[1])
    many = one
    for length in range(2, min(longest, len(one)) + 1):
        many = (many[:-1] * MIX) ^ one[length - 1 :]
        yield many * MIX + np.uint64(length)
    if unit == WORDS:
        yield from (_letters(token) for token in set(tokens))


@lru_cache(maxsize=1 << 18)
def _hash(token: str) -> int:
    digest = hashlib.blake2b(token.encode("utf8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@lru_cache(maxsize=1 << 16)
def _letters(word: str) -> np.ndarray:
    """Hashes of the n-grams of letters within a word."""
    marked = f"\x02{word[:LONGEST_WORD]}\x03"
    grams = [
        marked[begin : begin + length]
        for length in range(LETTERS[0], LETTERS[1] + 1)
        for begin in range(len(marked) - length + 1)
    ]
    return np.array([_hash(gram) for gram in grams], dtype=np.uint64)


def _scale(
    column: np.ndarray, counts: np.ndarray, row: np.ndarray, labels: np.ndarray, classes: int, texts: int
) -> np.ndarray:
    """The weight of each feature: inverse document frequency times the largest log-count ratio."""
    inverse = np.log((1 + texts) / (1 + counts)) + 1
    of_class = np.ones((len(counts), classes))
    for number in range(classes):
        of_class[:, number] += np.bincount(column[labels[row] == number], minlength=len(counts))
    share = of_class / of_class.sum(axis=0)
    rest = (of_class.sum(axis=1, keepdims=True) - of_class) / (of_class.sum() - of_class.sum(axis=0))
    ratio = np.abs(np.log(share) - np.log(rest)).max(axis=1)
    return np.asarray(inverse * ratio)
