"""A linear model on n-grams of words and letters: what a person would pick for texts instead of a recurrent network.

An n-gram of words, or of letters across words, is there or not; its weight is the inverse document frequency times the
largest log-count ratio of a class (Wang and Manning 2012); of numbers, the classes are those above and below their
median. Words and letters are each brought to length 1, so that the many letters do not drown the words. Multinomial
logistic regression decides, ridge regression on numbers. It is the baseline of a report, and what the network is
blended with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cellwise.tasks.classify.linear import Rows, fit_linear, linear_loss
from cellwise.tasks.classify.tokens import WORDS, folded, words_of

__all__ = ["NgramModel"]

LETTERS = (3, 5)  # letters of the shortest and the longest n-gram
RARE = {"words": 1, "letters": 3}  # texts that an n-gram must stand in to be a feature
FEW = 100  # texts, up to which one does
STRENGTHS = (1.0, 4.0)
# Characters of all texts up to which letters are n-grams too, and up to which words are: about a gigabyte each.
MOST_LETTERS, MOST_WORDS = 8_000_000, 60_000_000
MOST_WEIGHTS = 2**24  # n-grams of one kind times classes: fitting holds some twenty numbers for each
CHUNK = 4096  # texts whose n-grams are found together
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, its bits without pattern: the golden ratio
SPREAD = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True, eq=False)
class NgramModel:
    """unit, size: tokens, and words in the longest n-gram. words (F1,), letters (F2,): sorted hashes of n-grams, int64;
    scale (F1 + F2,): the weight of each in a row; weights (F1 + F2, C) and bias (C,): of the regression, float32."""

    unit: str
    size: int
    words: Tensor
    letters: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor

    name = "linear model on n-grams"

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        targets: Tensor,
        outputs: int,
        unit: str,
        size: int,
        valid: tuple[Sequence[str], Tensor],
    ) -> NgramModel:
        """Fit to texts of classes (N,) int64 from 0 to `outputs` - 1, or of numbers (N,) float32, with `outputs` 1;
        other texts choose the strength of the regression."""
        texts, targets, has_letters = _bounded(texts, targets, unit)
        labels, classes = targets.numpy(), outputs
        if targets.is_floating_point():
            labels, classes = (targets > targets.median()).long().numpy(), 2
        none = _Hashed(np.zeros(0, np.uint64), np.zeros(len(texts), np.int64))
        parts = {
            "words": _words(texts, size) if unit == WORDS else none,
            "letters": _letters(texts) if has_letters else none,
        }
        found = {name: _features(part, labels, classes, name) for name, part in parts.items()}
        hashes = {name: torch.from_numpy(each.view(np.int64)) for name, (each, _) in found.items()}
        scale = torch.from_numpy(np.concatenate([each for _, each in found.values()]).astype(np.float32))
        start = (torch.zeros(len(scale), outputs), torch.zeros(outputs))
        model = cls(unit, size, hashes["words"], hashes["letters"], scale, *start)
        rows, held = model._rows(parts["words"], parts["letters"]), model.rows(valid[0])
        best: tuple[float, NgramModel] | None = None
        for strength in STRENGTHS:
            start = fit_linear(rows, targets, strength, *start)
            fitted = cls(unit, size, hashes["words"], hashes["letters"], scale, *start)
            loss = linear_loss(fitted._logits(held), valid[1])
            if best is None or float(loss) < best[0]:
                best = (float(loss), fitted)
        assert best is not None
        return best[1]

    def logits(self, texts: Sequence[str]) -> Tensor:
        """Logits (N, C) or numbers (N, 1) of texts, float32."""
        parts = [self._logits(self.rows(texts[at : at + CHUNK])) for at in range(0, len(texts), CHUNK)]
        return torch.cat([*parts, self.weights[:0]])

    def _logits(self, rows: Rows) -> Tensor:
        return rows.matrix() @ self.weights + self.bias

    def rows(self, texts: Sequence[str]) -> Rows:
        """The features of texts, words and letters each of length 1."""
        none = _Hashed(np.zeros(0, np.uint64), np.zeros(len(texts), np.int64))
        return self._rows(
            _words(texts, self.size) if len(self.words) else none,
            _letters(texts) if len(self.letters) else none,
        )

    def _rows(self, words: _Hashed, letters: _Hashed) -> Rows:
        first, scale = len(self.words), self.scale.numpy()
        parts = (
            _entries(words, self.words, scale[:first], 0),
            _entries(letters, self.letters, scale[first:], first),
        )
        row, column, value = (np.concatenate(each) for each in zip(*parts, strict=True))
        order = np.argsort(row, kind="stable")
        bounds = np.r_[0, np.cumsum(np.bincount(row, minlength=len(words)))]
        return Rows(column[order], value[order], bounds, len(self.scale))

    def tensors(self) -> dict[str, Tensor]:
        """What a run folder holds of it."""
        return {f"ngrams/{name}": getattr(self, name) for name in _TENSORS}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], unit: str, size: int, classes: int) -> NgramModel:
        """The inverse of `tensors`. Raises KeyError or ValueError if they are none."""
        made = cls(unit, size, *(tensors[f"ngrams/{name}"] for name in _TENSORS))
        for hashes in (made.words, made.letters):
            if hashes.dtype != torch.int64 or hashes.dim() != 1:
                raise ValueError("its n-grams are none")
            values = hashes.numpy().view(np.uint64)
            if (values[1:] <= values[:-1]).any():
                raise ValueError("its n-grams are not in order")
        count = len(made.words) + len(made.letters)
        shapes = {"scale": (count,), "weights": (count, classes), "bias": (classes,)}
        for name, shape in shapes.items():
            value = getattr(made, name)
            if value.dtype != torch.float32 or tuple(value.shape) != shape:
                raise ValueError(f"the {name} of its n-grams are none")
        return made


_TENSORS = ("words", "letters", "scale", "weights", "bias")


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


def _bounded(texts: Sequence[str], targets: Tensor, unit: str) -> tuple[Sequence[str], Tensor, bool]:
    """As many texts as memory has room for, in an order without pattern, and whether for their letters too."""
    lengths = np.array([len(text) for text in texts])
    has_letters = unit != WORDS or lengths.sum() <= MOST_LETTERS
    limit = MOST_LETTERS if unit != WORDS else MOST_WORDS
    if lengths.sum() <= limit:
        return texts, targets, has_letters
    order = np.random.default_rng(0).permutation(len(texts))
    kept = order[np.cumsum(lengths[order]) <= limit]
    return [texts[row] for row in kept.tolist()], targets[torch.from_numpy(kept)], has_letters


def _words(texts: Sequence[str], size: int) -> _Hashed:
    """N-grams of words."""
    units = [np.array([_hash(word) for word in words_of(text)], dtype=np.uint64) for text in texts]
    return _packed(units, 1, size)


def _letters(texts: Sequence[str]) -> _Hashed:
    """N-grams of letters in lower case, across words; the ends of a text count as spaces."""
    units = []
    for text in texts:
        letters = f" {' '.join(folded(text).split())} ".encode("utf-32-le", "surrogatepass")
        units.append((np.frombuffer(letters, np.uint32).astype(np.uint64) + np.uint64(1)) * SPREAD)
    return _packed(units, *LETTERS)


def _packed(units: list[np.ndarray], shortest: int, longest: int) -> _Hashed:
    """The n-grams of texts that are given as a hash for each unit."""
    parts = [_chunk(units[begin : begin + CHUNK], shortest, longest) for begin in range(0, len(units), CHUNK)]
    hashes, lengths = ([getattr(part, name) for part in parts] for name in ("hashes", "lengths"))
    return _Hashed(
        np.concatenate([*hashes, np.zeros(0, np.uint64)]), np.concatenate([*lengths, np.zeros(0, np.int64)])
    )


def _chunk(units: list[np.ndarray], shortest: int, longest: int) -> _Hashed:
    flat = np.concatenate([*units, np.zeros(0, np.uint64)])
    row = np.repeat(np.arange(len(units)), [len(each) for each in units])
    hashes, rows, many = [], [], flat * MIX
    for length in range(1, longest + 1):
        if length > 1:
            many = (many[:-1] * MIX) ^ flat[length - 1 :]
        if length >= shortest and len(many):
            inside = row[: len(many)] == row[length - 1 :]  # and not from one text into the next
            mixed = (many ^ (many >> np.uint64(29))) * MIX + np.uint64(length)
            hashes.append(mixed[inside])
            rows.append(row[: len(many)][inside])
    found, home = np.concatenate([*hashes, flat[:0]]), np.concatenate([*rows, row[:0]])
    order = np.lexsort((found, home))
    found, home = found[order], home[order]
    first = np.r_[True, (found[1:] != found[:-1]) | (home[1:] != home[:-1])][: len(found)]
    return _Hashed(found[first], np.bincount(home[first], minlength=len(units)))


@lru_cache(maxsize=1 << 18)
def _hash(word: str) -> int:
    digest = hashlib.blake2b(word.encode("utf8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _features(texts: _Hashed, labels: np.ndarray, classes: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The n-grams that are features, sorted, and their weights: inverse document frequency times log-count ratio."""
    found, column, counts = np.unique(texts.hashes, return_inverse=True, return_counts=True)
    kept = counts >= (RARE[name] if len(texts) > FEW else 1)
    most = MOST_WEIGHTS // classes
    if kept.sum() > most:  # the most frequent of them
        kept = np.zeros(len(counts), dtype=bool)
        kept[np.argsort(-counts, kind="stable")[:most]] = True
    home = labels[texts.rows]
    there, number = kept[column], np.cumsum(kept) - 1
    cell = number[column[there]] * classes + home[there]
    of_class = 1.0 + np.bincount(cell, minlength=int(kept.sum()) * classes).reshape(-1, classes)
    of_all = len(counts) + np.bincount(home, minlength=classes)  # of n-grams that are no features too
    inverse = np.log((1 + len(texts)) / (1 + counts[kept])) + 1
    rest = (of_class.sum(axis=1, keepdims=True) - of_class) / (of_all.sum() - of_all)
    ratio = np.abs(np.log(of_class / of_all) - np.log(rest)).max(axis=1, initial=0.0)
    return found[kept], inverse * ratio


def _entries(
    texts: _Hashed, features: Tensor, scale: np.ndarray, offset: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of each known n-gram; the values of a row have length 1."""
    known_hashes = features.numpy().view(np.uint64)
    column = np.searchsorted(known_hashes, texts.hashes)
    known = column < len(known_hashes)
    known[known] = known_hashes[column[known]] == texts.hashes[known]
    column, row = column[known], texts.rows[known]
    value = scale[column].astype(np.float64)
    norm = np.sqrt(np.bincount(row, value**2, len(texts)))
    return row, column + offset, value / np.maximum(norm, 1e-12)[row]
