"""Transcripts as a network learns them: normalised text, and an alphabet of its characters."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cellwise.tasks.errors import DataError
from cellwise.tasks.speech.network import BLANK

__all__ = ["NORMALIZATIONS", "Alphabet", "normalize"]

MOST_CHARACTERS = 5000
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
    """The characters of the training transcripts; their numbers begin behind that of the blank.

    counts: how often each stands in training."""

    characters: tuple[str, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Alphabet:
        """Of normalised transcripts. DataError if there are too many different characters for a recogniser."""
        counted = sorted(Counter("".join(texts)).items())
        if len(counted) > MOST_CHARACTERS:
            raise DataError(
                f"the transcripts have {len(counted):,} different characters; a recogniser takes {MOST_CHARACTERS:,}"
            )
        return cls(tuple(c for c, _ in counted), tuple(n for _, n in counted))

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Numbers of the characters; those that training has not seen are left out."""
        numbers = {c: i for i, c in enumerate(self.characters, BLANK + 1)}
        return [numbers[c] for c in text if c in numbers]

    def decode(self, numbers: Sequence[int]) -> str:
        """The text of some numbers, none of them the blank."""
        return "".join(self.characters[i - BLANK - 1] for i in numbers)
