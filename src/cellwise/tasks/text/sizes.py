"""The sizes that suit a text, where nobody gives them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Sizes", "sizes_for"]


@dataclass(frozen=True)
class Sizes:
    """Hidden size, dropout of the outputs, and epochs."""

    hidden_size: int
    dropout: float
    epochs: int

    def stored(self) -> dict[str, Any]:
        """As config.json holds them."""
        return asdict(self)

    @classmethod
    def of(cls, stored: Any) -> Sizes:
        """The inverse. Raises ValueError or TypeError for what are none."""
        made = cls(**stored)
        numbers = made.hidden_size, made.epochs
        if not all(type(each) is int and 1 <= each <= 65_536 for each in numbers):
            raise ValueError("its sizes are none")
        if type(made.dropout) not in (int, float) or not 0 <= made.dropout < 1:
            raise ValueError("its dropout is none")
        return made


# Characters of a text below which a row holds -> the sizes. The more text, the larger the network that it can fill and
# the fewer times it must be read.
_TABLE = (
    (100_000, Sizes(128, 0.3, 40)),
    (400_000, Sizes(256, 0.25, 20)),
    (2_000_000, Sizes(384, 0.2, 12)),
    (10_000_000, Sizes(512, 0.1, 5)),
    (math.inf, Sizes(768, 0.0, 2)),
)


def sizes_for(characters: int, hidden_size: int | None, dropout: float | None) -> Sizes:
    """Those of a text of so many characters, with what was given."""
    suited = next(sizes for limit, sizes in _TABLE if characters < limit)
    return Sizes(
        suited.hidden_size if hidden_size is None else hidden_size,
        suited.dropout if dropout is None else dropout,
        suited.epochs,
    )
