"""Any text, made safe to show on a page or a terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["shown"]

# They turn the order of what follows: a name could make the text around it read as something else.
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def shown(text: str, most: int | None = None) -> str:
    """The text with what cannot be seen, or moves what can, written as its escape; at most `most` characters.

    XML knows no control characters, UTF-8 no halves of a surrogate pair, and a terminal obeys what it is sent.

    >>> shown("a\\x1b[31m\\nb"), shown("x" * 9, 5)
    ('a\\\\x1b[31m\\\\nb', 'xx...')
    """
    made = "".join(
        _escape(each) if _is_hidden(each) else each for each in text[: None if most is None else most + 1]
    )
    return made if most is None or len(made) <= most else made[: most - 3] + "..."


def _is_hidden(character: str) -> bool:
    if character.isascii():
        return not character.isprintable()
    number = ord(character)
    is_none = number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF
    return is_none or character in _DIRECTIONS or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
