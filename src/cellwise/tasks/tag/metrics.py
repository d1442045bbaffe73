"""How good tags are: by word, and by entity as the script of CoNLL 2000 counts (Tjong Kim Sang and Buchholz 2000)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cellwise.tasks.tag.schemes import entities

__all__ = ["Counts", "f1_of", "measure_tags"]

Tags = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Counts:
    """Of one tag or one type of entity: how often it is right, predicted and true."""

    right: int
    predicted: int
    true: int

    @property
    def precision(self) -> float:
        """Right among the predicted; 0 if there are none."""
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Right among the true; 0 if there are none."""
        return self.right / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of the two."""
        return f1_of(self.precision, self.recall)


def f1_of(precision: float, recall: float) -> float:
    """Harmonic mean of precision and recall; 0 if both are."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def measure_tags(
    words: Sequence[Sequence[str]],
    true: Tags,
    predicted: Tags,
    knows: Callable[[str], bool],
    has_entities: bool,
) -> dict[str, float]:
    """`accuracy`, over all words, `accuracy_known` and `accuracy_unknown`, over those that training has and has
    not seen (NaN where there are none); `precision`, `recall`, `f1`: of entities, where tags mark them, else the means
    over the tags, each counting alike."""
    hits = {True: 0, False: 0}
    totals = {True: 0, False: 0}
    for sentence, real, own in zip(words, true, predicted, strict=True):
        for word, a, b in zip(sentence, real, own, strict=True):
            is_known = knows(word)
            totals[is_known] += 1
            hits[is_known] += a == b
    count = sum(totals.values())
    counted = count_entities(true, predicted) if has_entities else count_tags(true, predicted)
    if has_entities:
        total = Counts(
            *(
                sum(getattr(each, name) for each in counted.values())
                for name in ("right", "predicted", "true")
            )
        )
        precision, recall, f1 = total.precision, total.recall, total.f1
    else:
        precision, recall, f1 = (
            sum(getattr(each, name) for each in counted.values()) / max(1, len(counted))
            for name in ("precision", "recall", "f1")
        )
    return {
        "accuracy": sum(hits.values()) / count if count else float("nan"),
        "accuracy_known": hits[True] / totals[True] if totals[True] else float("nan"),
        "accuracy_unknown": hits[False] / totals[False] if totals[False] else float("nan"),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }


def count_entities(true: Tags, predicted: Tags) -> dict[str, Counts]:
    """By type of entity: one is right if both ends and the type are.

    >>> count_entities([["B-A", "I-A", "O"]], [["B-A", "O", "B-A"]])
    {'A': Counts(right=0, predicted=2, true=1)}
    """
    return _counts((entities(a), entities(b)) for a, b in zip(true, predicted, strict=True))


def count_tags(true: Tags, predicted: Tags) -> dict[str, Counts]:
    """By tag."""
    return _counts(
        ([(i, i, tag) for i, tag in enumerate(a)], [(i, i, tag) for i, tag in enumerate(b)])
        for a, b in zip(true, predicted, strict=True)
    )


def _counts(
    pairs: Iterable[tuple[Sequence[tuple[int, int, str]], Sequence[tuple[int, int, str]]]],
) -> dict[str, Counts]:
    right: Counter[str] = Counter()
    made: Counter[str] = Counter()
    real: Counter[str] = Counter()
    for a, b in pairs:
        real.update(kind for _, _, kind in a)
        made.update(kind for _, _, kind in b)
        right.update(kind for _, _, kind in set(a) & set(b))
    return {kind: Counts(right[kind], made[kind], real[kind]) for kind in sorted(set(real) | set(made))}
