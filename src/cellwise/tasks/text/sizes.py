"""The settings that suit the size of a text, where nobody gives them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Sizes", "sizes_for"]


@dataclass(frozen=True)
class Sizes:
    """Dropout of the outputs, and epochs."""

    dropout: float
    epochs: int

    def stored(self) -> dict[str, Any]:
        """As config.json holds them."""
        return asdict(self)

    @classmethod
    def of(cls, stored: Any) -> Sizes:
        """The inverse. Raises ValueError or TypeError for what are none."""
        made = cls(**stored)
        if type(made.epochs) is not int or made.epochs < 1:
            raise ValueError("its epochs are none")
        if type(made.dropout) not in (int, float) or not 0 <= made.dropout < 1:
            raise ValueError("its dropout is none")
        return made


# Characters of a text below which a row holds -> the settings. The more text, the fewer times it
# must be read, and the less can it be learned by heart.
_TABLE = (
    (100_000, Sizes(0.3, 40)),
    (400_000, Sizes(0.25, 20)),
    (2_000_000, Sizes(0.2, 12)),
    (10_000_000, Sizes(0.1, 5)),
    (math.inf, Sizes(0.0, 2)),
)


def sizes_for(characters: int, dropout: float | None) -> Sizes:
    """Those of a text of so many characters, with what was given."""
    suited = next(sizes for limit, sizes in _TABLE if characters < limit)
    return Sizes(suited.dropout if dropout is None else dropout, suited.epochs)
