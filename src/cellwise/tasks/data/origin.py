"""Where the rows of a table came from, so that a sentence about one can say where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellwise.tasks.data.encoding import line_at

__all__ = ["Origin", "shortened", "shown", "shown_names"]

LONGEST_SHOWN, MOST_SHOWN = 60, 10


def shown(value: object) -> str:
    """A value of a table within a sentence: quoted, on one line, not too long."""
    return repr(shortened(str(value), LONGEST_SHOWN))


def shortened(text: str, length: int = 200) -> str:
    """A text, or its beginning."""
    return text if len(text) <= length else text[: length - 3] + "..."


def shown_names(names: Sequence[object]) -> str:
    """The columns of a table within a sentence, not too many."""
    more = f", ... ({len(names):,} in all)" if len(names) > MOST_SHOWN else ""
    return ", ".join(map(shown, names[:MOST_SHOWN])) + more


@dataclass(frozen=True, eq=False)
class Origin:
    """Rows of a text file, if text is given: UTF-8, and where in it each row starts (R,); else of a frame.

    decimal_comma: whether numbers in a file of this kind often have a decimal comma, so that one dot before
    three digits may be a thousands mark."""

    text: bytes | None = None
    starts: np.ndarray | None = None
    decimal_comma: bool = False

    @property
    def is_text(self) -> bool:
        """Whether values are text that somebody typed or a program wrote."""
        return self.text is not None

    def where(self, row: int) -> str:
        """How a person finds a row: the line of a text file (the header is line 1), else the row counted from
        0."""
        if self.text is None or self.starts is None:
            return f"row {row}"
        return f"line {line_at(self.text, int(self.starts[row]))}"
