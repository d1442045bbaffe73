"""What is likely to be said: an n-gram model of characters, learned from transcripts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cellwise.tasks.data.kneser_ney import KneserNey
from cellwise.tasks.speech.transcripts import Alphabet

__all__ = ["END", "CharacterLanguage"]

ORDER = 8
END = 0  # stands before, between and behind transcripts; the blank's number, which no text holds
MOST_REMEMBERED = 200_000


class CharacterLanguage:
    """Log-probabilities of the next character, or of the end, behind the last ones.

    text: numbers of the characters of all transcripts, as `training_text` makes them."""

    def __init__(self, text: np.ndarray, size: int) -> None:
        self._model = KneserNey(text, size, ORDER)
        self._remembered: dict[tuple[int, ...], np.ndarray] = {}

    @property
    def start(self) -> tuple[int, ...]:
        """The context before the first character."""
        return (END,) * (self._model.order - 1)

    def after(self, context: tuple[int, ...], character: int) -> tuple[int, ...]:
        """The context once a character is said."""
        return (*context, character)[1:] if context else context

    def following(self, context: tuple[int, ...]) -> np.ndarray:
        """Log-probabilities (K,) of what comes next; that of END is the end."""
        known = self._remembered.get(context)
        if known is None:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            known = np.log(np.maximum(self._model.following(np.array(context, dtype=np.int64)), 1e-30))
            self._remembered[context] = known
        return known


def training_text(texts: Iterable[str], alphabet: Alphabet) -> np.ndarray:
    """The numbers (N,) of all characters of normalised transcripts, with ends between them."""
    between = [END] * (ORDER - 1)
    numbers = list(between)
    for text in texts:
        numbers += alphabet.encode(text) + between
    return np.array(numbers, dtype=np.int64)
