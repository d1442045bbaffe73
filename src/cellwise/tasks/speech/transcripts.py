"""Transcripts as a network learns them: normalised text, and an alphabet of its characters or subwords."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from cellwise.tasks.data.subwords import Subwords
from cellwise.tasks.errors import DataError
from cellwise.tasks.speech.network import BLANK

__all__ = ["NORMALIZATIONS", "Alphabet", "normalize", "pieces"]

MOST_UNITS = 5000
NORMALIZATIONS = {
    "letters": "lower case; letters, digits and apostrophes, with one space between words; the rest is left out",
    "spaces": "as it is written, with one space between words",
}
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'"})


def normalize(text: str, how: str = "letters") -> str:
    """A transcript by one of the NORMALIZATIONS, in Unicode's composed form.

    >>> normalize("Don't press  “5” — O.K.?")
    "don't press 5 o k"
    """
    text = unicodedata.normalize("NFC", text)
    if how == "letters":
        text = text.translate(_APOSTROPHES).lower()
        text = "".join(c if c == "'" or unicodedata.category(c)[0] in "LNM" else " " for c in text)
        text = re.sub(r"(?<!\w)'+|'+(?!\w)", " ", text)
    return " ".join(text.split())


@dataclass(frozen=True)
class Alphabet:
    """The units that a network writes: the characters of the training transcripts, or pieces of words made of them.
    Their numbers begin behind that of the blank.

    units: the text of each. counts: how often each stands in training. subwords: what cuts a text into pieces; without
    it every character is a unit."""

    units: tuple[str, ...]
    counts: tuple[int, ...]
    subwords: Subwords | None = None

    @classmethod
    def of(cls, texts: Sequence[str], subwords: Subwords | None = None) -> Alphabet:
        """All that normalised transcripts need. DataError if there are too many different units for a recogniser."""
        counted = Counter(unit for text in texts for unit in pieces(text, subwords))
        if len(counted) > MOST_UNITS:
            raise DataError(
                f"the transcripts have {len(counted):,} different "
                f"{'characters' if subwords is None else 'subwords'}; a recogniser takes {MOST_UNITS:,}"
            )
        if subwords is not None:  # each character can be written by itself too
            counted.update(dict.fromkeys(set("".join(texts)) - counted.keys(), 1))
        units = sorted(counted)
        return cls(tuple(units), tuple(counted[unit] for unit in units), subwords)

    def __len__(self) -> int:
        return len(self.units)

    @cached_property
    def characters(self) -> tuple[str, ...]:
        """All characters of the units."""
        return tuple(sorted(set("".join(self.units))))

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {unit: number for number, unit in enumerate(self.units, BLANK + 1)}

    def encode(self, text: str) -> list[int]:
        """Numbers of the units; characters that training has not seen are left out."""
        return [
            self._numbers[each]
            for unit in pieces(text, self.subwords)
            for each in ([unit] if unit in self._numbers else unit)
            if each in self._numbers
        ]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of some numbers, none of them the blank."""
        return "".join(self.units[i - BLANK - 1] for i in numbers)


def pieces(text: str, subwords: Subwords | None) -> Sequence[str]:
    """A text in its units: its characters, or subwords. Of the latter those that end within the bytes of a character
    are joined with what follows, so that each is a text."""
    if subwords is None:
        return text
    made, waiting = [], b""
    for token in subwords.encode([text])[0]:
        waiting += subwords.bytes_of(token)
        try:
            made.append(waiting.decode("utf8"))
        except UnicodeDecodeError:
            continue
        waiting = b""
    return made
