"""From log-probabilities of a network to text: the best path, or the best text by a beam of prefixes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellwise.tasks.speech.language import Language
from cellwise.tasks.speech.network import BLANK

__all__ = ["Beam", "best_path", "collapse"]

UNLIKELY = -7.0  # a character whose log-probability in a step is lower does not extend a prefix there
MOST_LIKELY = 8  # nor do others than so many, the likeliest
NEVER = -math.inf


def collapse(path: Sequence[int], before: int = BLANK) -> list[int]:
    """The classes of a path: repeats are one, blanks none. before: the step in front of it.

    >>> collapse([0, 3, 3, 0, 3, 1, 1])
    [3, 3, 1]
    """
    made = []
    for each in path:
        if each not in (BLANK, before):
            made.append(each)
        before = each
    return made


def best_path(scores: np.ndarray) -> list[int]:
    """The classes of the most likely path through log-probabilities (T, K)."""
    return collapse(scores.argmax(axis=1).tolist())


@dataclass(frozen=True)
class Beam:
    """A search for the text of the highest score: the log of its probability, which is the sum over all its paths, plus
    `weight` times that of the language, plus `bonus` for each character (Hannun et al. 2014).

    units: the text that each class but the blank stands for, for the language. width: how many prefixes are kept after
    each step. unlikely, most_likely: which classes are tried in a step. Where these three leave nothing out, the search
    is exact."""

    width: int = 32
    units: Sequence[str] = ()
    language: Language | None = None
    weight: float = 0.0
    bonus: float = 0.0
    unlikely: float = UNLIKELY
    most_likely: int = MOST_LIKELY

    def decode(self, scores: np.ndarray) -> list[int]:
        """The classes of the best text, for log-probabilities (T, K)."""
        return self.ranked(scores)[0][0]

    def ranked(self, scores: np.ndarray) -> list[tuple[list[int], float]]:
        """The texts that are left at the end, the best first, with their scores."""
        start = _Prefix((), None if self.language is None else self.language.start, 0.0)
        beam: dict[tuple[int, ...], _Prefix] = {(): start}
        start.blank = 0.0
        for step in scores.astype(np.float64):
            if self.language is not None:
                self.language.prepare([prefix.context for prefix in beam.values()])
            beam = self._step(beam, step)
        found = [(list(each.classes), each.total + self._end(each)) for each in beam.values()]
        return sorted(found, key=lambda pair: -pair[1])

    def _step(self, beam: dict[tuple[int, ...], _Prefix], step: np.ndarray) -> dict[tuple[int, ...], _Prefix]:
        chance = step.tolist()
        likely = [k for k, each in enumerate(chance) if each > self.unlikely and k != BLANK]
        if len(likely) > self.most_likely:
            likely = sorted(likely, key=lambda k: -chance[k])[: self.most_likely]
        after: dict[tuple[int, ...], _Prefix] = {}
        for classes, prefix in beam.items():
            same = after.get(classes)
            if same is None:
                same = after[classes] = prefix.again()
            same.blank = _add(same.blank, prefix.acoustic + chance[BLANK])
            if classes:
                same.other = _add(same.other, prefix.other + chance[classes[-1]])
            for k in likely:
                # a repeat needs a blank in between
                before = prefix.blank if classes and classes[-1] == k else prefix.acoustic
                if before == NEVER:
                    continue
                longer = (*classes, k)
                made = after.get(longer)
                if made is None:
                    made = after[longer] = self._extended(prefix, longer)
                made.other = _add(made.other, before + chance[k])
        if len(after) <= self.width:
            return after
        kept = sorted(after.values(), key=lambda each: -each.total)[: self.width]
        return {each.classes: each for each in kept}

    def _extended(self, prefix: _Prefix, longer: tuple[int, ...]) -> _Prefix:
        if self.language is None:
            return _Prefix(longer, None, prefix.prior + self.bonus)
        prior, context = prefix.prior, prefix.context
        for character in self.units[longer[-1] - BLANK - 1]:
            chance, context = self.language.following(context, character)
            prior += self.weight * chance + self.bonus
        return _Prefix(longer, context, prior)

    def _end(self, prefix: _Prefix) -> float:
        return 0.0 if self.language is None else self.weight * self.language.end(prefix.context)


class _Prefix:
    """The beginning of a text. blank, other: log-probabilities of its paths that end in a blank, and in its last
    class; prior: what the language and the bonus say of it."""

    __slots__ = ("blank", "classes", "context", "other", "prior")

    def __init__(self, classes: tuple[int, ...], context: Any, prior: float) -> None:
        self.classes, self.context, self.prior = classes, context, prior
        self.blank = self.other = NEVER

    def again(self) -> _Prefix:
        """The same text, with no path yet."""
        return _Prefix(self.classes, self.context, self.prior)

    @property
    def acoustic(self) -> float:
        return _add(self.blank, self.other)

    @property
    def total(self) -> float:
        return self.acoustic + self.prior


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))
