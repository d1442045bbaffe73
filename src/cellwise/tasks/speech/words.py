"""A model of words in the search, which spells the words that it does not know (Hori, Watanabe, Hershey 2017).

Within a word the characters are scored by a model of characters. Where the word ends, what its characters cost is taken
back, and the word is scored as one, behind the words before it. A model of words has no closed vocabulary here: what it
leaves for words that it has never seen is shared among all spellings, by the model of characters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cellwise.tasks.data.kneser_ney import KneserNey
from cellwise.tasks.speech.language import LEAST, MOST_REMEMBERED, Language

__all__ = ["WordLanguage", "WordModel", "WordNGram"]

ORDER = 3
END = 0
SPACE = " "


class WordModel(ABC):
    """Log-probabilities of words. A history is what a model remembers of the words before."""

    @property
    @abstractmethod
    def start(self) -> tuple[Any, ...]:
        """The history of the first word."""

    @abstractmethod
    def chance(self, history: tuple[Any, ...], word: str, spelled: float) -> float:
        """The log-probability of a word. spelled: that of its spelling, for one that is not known."""

    @abstractmethod
    def after(self, history: tuple[Any, ...], word: str) -> tuple[Any, ...]:
        """The history once a word is said."""

    @abstractmethod
    def end(self, history: tuple[Any, ...]) -> float:
        """The log-probability that no further word comes."""


class WordNGram(WordModel):
    """An n-gram model of words with Kneser-Ney smoothing, learned from sentences. Its lowest order is interpolated with
    the probability of a word's spelling, where such models usually take the same for all words."""

    def __init__(self, sentences: Iterable[str]) -> None:
        lists = [sentence.split() for sentence in sentences]
        known = sorted({word for words in lists for word in words})
        self._numbers = {word: number for number, word in enumerate(known, END + 1)}
        self._unknown = len(known) + 1
        between = [END] * (ORDER - 1)
        text = list(between)
        for words in lists:
            text += [self._numbers[word] for word in words] + between
        self._model = KneserNey(np.array(text, dtype=np.int64), self._unknown + 1, ORDER)
        self._remembered: dict[tuple[tuple[int, ...], int], tuple[float, float]] = {}

    @property
    def start(self) -> tuple[int, ...]:
        """A history is the numbers of the last words."""
        return (END,) * (self._model.order - 1)

    def chance(self, history: tuple[int, ...], word: str, spelled: float) -> float:
        """See `WordModel`."""
        counted, left = self._share(history, self._numbers.get(word, self._unknown))
        return math.log(max(LEAST, counted + left * math.exp(spelled)))

    def after(self, history: tuple[int, ...], word: str) -> tuple[int, ...]:
        """See `WordModel`."""
        return (*history, self._numbers.get(word, self._unknown))[1:] if history else history

    def end(self, history: tuple[int, ...]) -> float:
        """See `WordModel`."""
        return math.log(max(LEAST, self._share(history, END)[0]))

    def _share(self, history: tuple[int, ...], number: int) -> tuple[float, float]:
        known = self._remembered.get((history, number))
        if known is None:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            known = self._remembered[history, number] = self._model.share(history, number)
        return known


class _Context(NamedTuple):
    """letters: of the word that is being said; spelled: their log-probability."""

    characters: Any
    history: tuple[Any, ...]
    letters: str = ""
    spelled: float = 0.0


class WordLanguage(Language):
    """Words by one model, and their spelling by another."""

    def __init__(self, words: WordModel, characters: Language) -> None:
        self._words, self._characters = words, characters

    @property
    def start(self) -> _Context:
        """See `Language`."""
        return _Context(self._characters.start, self._words.start)

    def following(self, context: _Context, character: str) -> tuple[float, _Context]:
        """See `Language`: of a space, the log-probability of the word that it ends, less that of its letters."""
        chance, characters = self._characters.following(context.characters, character)
        if character != SPACE:
            letters, spelled = context.letters + character, context.spelled + chance
            return chance, _Context(characters, context.history, letters, spelled)
        if not context.letters:
            return chance, _Context(characters, context.history)
        history = self._words.after(context.history, context.letters)
        return self._exchanged(context, chance), _Context(characters, history)

    def end(self, context: _Context) -> float:
        """See `Language`."""
        if not context.letters:
            return self._words.end(context.history)
        history = self._words.after(context.history, context.letters)
        space = self._characters.following(context.characters, SPACE)[0]
        return self._exchanged(context, space) + self._words.end(history)

    def prepare(self, contexts: Sequence[_Context]) -> None:
        """See `Language`."""
        self._characters.prepare([context.characters for context in contexts])

    def _exchanged(self, context: _Context, space: float) -> float:
        """What a whole word adds to what its letters cost. space: the log-probability of one behind them, which is one
        of the two ways in which a word ends."""
        ends = math.log(max(LEAST, math.exp(space) + math.exp(self._characters.end(context.characters))))
        spelled = context.spelled
        return self._words.chance(context.history, context.letters, spelled + ends) - spelled
