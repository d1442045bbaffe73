"""Texts cut into words or characters."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = [
    "CHARACTERS",
    "SUBWORDS",
    "UNITS",
    "WORDS",
    "choose_unit",
    "folded",
    "spans_of",
    "tokens_of",
    "words_of",
]

WORDS, CHARACTERS, SUBWORDS = "words", "characters", "subwords"
UNITS = (WORDS, CHARACTERS, SUBWORDS)
# Scripts that put no spaces between words: each character is a word of its own.
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
# A web address, a name with @, an emoticon, a word with its marks and apostrophes, or a single sign.
TOKEN = re.compile(
    rf"https?://\S+|www\.\S+|@\w+|[:;=][-o*']?[)(\]\[dDpP/\\|]+(?!\w)|<3"
    rf"|[{UNSPACED}]|(?:(?![{UNSPACED}])\w)+(?:['’](?:(?![{UNSPACED}])\w)+)*|[^\w\s]"
)
PLACES = re.compile(r"https?://\S+|www\.\S+|@\w+")
NAME = 3  # words that a name has not
LONG_WORD = 24  # characters; texts whose words are mostly longer are not parted into words at all


def words_of(text: str) -> list[str]:
    """The words and signs of a text in lower case; web addresses and names with @ are one word each.

    >>> words_of("Isn't it GREAT, @bob? http://x.y/z :-)")
    ["isn't", 'it', 'great', ',', '@', '?', 'http://', ':-)']
    """
    return [_folded(token) for token in TOKEN.findall(text)]


def tokens_of(text: str, unit: str) -> Sequence[str]:
    """The tokens of a text: its words, or its characters as they are."""
    return words_of(text) if unit == WORDS else text


def spans_of(text: str, unit: str) -> list[tuple[int, int]]:
    """Where the tokens of `tokens_of` begin and end in the text."""
    if unit == WORDS:
        return [found.span() for found in TOKEN.finditer(text)]
    return [(place, place + 1) for place in range(len(text))]


def choose_unit(texts: Iterable[str]) -> str:
    """Words, unless they are too long to be any, or texts are one or two of them and most are there once: names, which
    say what they are by their letters.

    >>> choose_unit(["Anna", "Hanna Maria", "Otto"]), choose_unit(["yes", "no", "yes", "no"])
    ('characters', 'words')
    """
    count = letters = 0
    words: Counter[str] = Counter()
    for text in texts:
        found = words_of(text)
        count += 1
        words.update(found)
        letters += sum(map(len, found))
    total = words.total()
    has_names = total < NAME * count and 2 * sum(each == 1 for each in words.values()) > total
    return CHARACTERS if letters > LONG_WORD * total or has_names else WORDS


def folded(text: str) -> str:
    """A text in lower case in which all web addresses are one, and all names with @.

    >>> folded("See http://x.y/z, @Bob")
    'see http:// @'
    """
    return PLACES.sub(lambda found: _folded(found[0]), text).lower().replace("’", "'")


def _folded(token: str) -> str:
    if token.startswith(("http://", "https://", "www.")):
        return "http://"
    return "@" if token.startswith("@") else token.lower().replace("’", "'")
