"""What a tagger must beat: each word's most frequent tag."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MostFrequentTag"]


@dataclass(frozen=True)
class MostFrequentTag:
    """Each word gets the tag it has most often in training, a word never seen the most frequent of words seen once."""

    tags: dict[str, str]
    otherwise: str

    @classmethod
    def of(cls, words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]]) -> MostFrequentTag:
        """Count the training sentences."""
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for sentence, own in zip(words, tags, strict=True):
            for word, tag in zip(sentence, own, strict=True):
                counts[word][tag] += 1
        once = Counter(next(iter(each)) for each in counts.values() if each.total() == 1)
        everything: Counter[str] = Counter()
        for each in counts.values():
            everything.update(each)
        otherwise = (once or everything).most_common(1)[0][0]
        return cls({word: each.most_common(1)[0][0] for word, each in counts.items()}, otherwise)

    def predict(self, words: Sequence[Sequence[str]]) -> list[list[str]]:
        """Tags of each sentence."""
        return [[self.tags.get(word, self.otherwise) for word in sentence] for sentence in words]
