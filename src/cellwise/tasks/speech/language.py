"""What is likely to be said: models of language that the search asks for the next character, and an n-gram of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cellwise.tasks.data.kneser_ney import KneserNey

__all__ = ["LEAST", "MOST_REMEMBERED", "CharacterLanguage", "Language"]

ORDER = 8
END = 0  # stands before, between and behind sentences
MOST_REMEMBERED = 200_000
LEAST = 1e-30  # a probability whose logarithm is still a number


class Language(ABC):
    """Log-probabilities of what comes next in a sentence. A context is what a model remembers of its beginning."""

    @property
    @abstractmethod
    def start(self) -> Any:
        """The context of an empty sentence."""

    @abstractmethod
    def following(self, context: Any, character: str) -> tuple[float, Any]:
        """The log-probability of a character behind a context, and the context once it is said."""

    @abstractmethod
    def end(self, context: Any) -> float:
        """The log-probability that the sentence ends behind a context."""

    def prepare(self, contexts: Sequence[Any]) -> None:  # noqa: B027  (most have nothing to do)
        """These contexts will be asked for: what computes several together does so now."""


class CharacterLanguage(Language):
    """An n-gram model of characters with Kneser-Ney smoothing, learned from sentences.

    characters: those that can be said; others are left out of the sentences."""

    def __init__(self, sentences: Iterable[str], characters: str) -> None:
        self._numbers = {character: number for number, character in enumerate(characters, END + 1)}
        between = [END] * (ORDER - 1)
        text = list(between)
        for sentence in sentences:
            text += [self._numbers[each] for each in sentence if each in self._numbers]
            text += between
        self._model = KneserNey(np.array(text, dtype=np.int64), len(characters) + 1, ORDER)
        self._remembered: dict[str, np.ndarray] = {}

    @property
    def start(self) -> str:
        """Nothing; a context is the last characters."""
        return ""

    def following(self, context: str, character: str) -> tuple[float, str]:
        """See `Language`."""
        chance = float(self._chances(context)[self._numbers[character]])
        longer = context + character
        return chance, longer[max(0, len(longer) - self._model.order + 1) :]

    def end(self, context: str) -> float:
        """See `Language`."""
        return float(self._chances(context)[END])

    def _chances(self, context: str) -> np.ndarray:
        """Log-probabilities (K,) of what comes next; that of END is the end."""
        known = self._remembered.get(context)
        if known is None:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            numbers = np.zeros(
                self._model.order - 1, dtype=np.int64
            )  # a short context has the start before it
            if context:
                numbers[-len(context) :] = [self._numbers[each] for each in context]
            known = np.log(np.maximum(self._model.following(numbers), LEAST))
            self._remembered[context] = known
        return known
