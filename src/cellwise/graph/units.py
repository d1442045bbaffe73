"""How many units a value has: H, a part or a multiple of it, or a number of its own."""

from __future__ import annotations

import re
from math import gcd
from typing import Any, NamedTuple

MOST = 2**20  # units, and what H is multiplied or divided by
_OF_HIDDEN = re.compile(r"(?:(\d{1,7})\s*\*?\s*)?H(?:\s*/\s*(\d{1,7}))?")


class Units(NamedTuple):
    """`times` units; or `times` H over `per`, where that is not 0."""

    times: int = 1
    per: int = 1

    def at(self, hidden_size: Any) -> Any:
        """The number of units at some H, a number or a formula; of a number H must be a multiple of `per`."""
        if not self.per:
            return self.times
        return hidden_size if self == HIDDEN else (self.times * hidden_size) // self.per

    def misfit(self, hidden_size: int) -> bool:
        """Whether there is no such part of H."""
        return bool(self.per) and self.times * hidden_size % self.per != 0

    def __str__(self) -> str:
        if not self.per:
            return str(self.times)
        return f"{self.times if self.times > 1 else ''}H{f'/{self.per}' if self.per > 1 else ''}"


HIDDEN = Units()


def units_of(said: Any) -> Units:
    """What a number or a text says: 40, "H", "H / 4", "2 * H", "3H/4".

    Raises:
        ValueError: it says nothing of the kind.
    """
    if type(said) is int and 0 < said <= MOST:
        return Units(said, 0)
    text = said.strip() if isinstance(said, str) else ""
    if re.fullmatch(r"\d{1,7}", text):
        return units_of(int(text))
    match = _OF_HIDDEN.fullmatch(text)
    count, per = (int(each) if each else 1 for each in match.groups()) if match else (0, 0)
    if not (0 < count <= MOST and 0 < per <= MOST):
        raise ValueError(f"{said!r:.60} is no number of units")
    shared = gcd(count, per)
    return Units(count // shared, per // shared)
