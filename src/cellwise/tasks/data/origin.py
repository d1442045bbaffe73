"""Where the rows of a table came from, so that a sentence about one can say where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    """Rows of a text file, if text is given: UTF-8, and where in it each row starts (R,); of a worksheet, if its name
    is given, and the numbers of its rows (R,) as the spreadsheet shows them; else of a frame.

    decimal_comma: whether numbers in a file of this kind often have a decimal comma, so that one dot before
    three digits may be a thousands mark. notes: what was noticed when the file was opened, in sentences. header:
    whether its "rows" are the names in a header."""

    text: bytes | None = None
    starts: np.ndarray | None = None
    decimal_comma: bool = False
    sheet: str | None = None
    rows: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    header: bool = False

    @property
    def is_text(self) -> bool:
        """Whether values are text that somebody typed or a program wrote."""
        return self.text is not None

    def where(self, row: int) -> str:
        """How a person finds a row: the line of a text file (the header is line 1), the row of a worksheet, else the
        row counted from 0."""
        if self.text is not None and self.starts is not None:
            return f"line {line_at(self.text, int(self.starts[row]))}"
        if self.rows is not None:
            return f"row {int(self.rows[row])} of sheet {shown(self.sheet)}"
        return f"column {row + 1} of the times in the header" if self.header else f"row {row}"

    def column(self, name: str) -> str:
        """How a person finds a column."""
        return f"column {name!r}"

    def take(self, chosen: np.ndarray | slice) -> Origin:
        """The origin of these rows only."""
        return replace(
            self,
            starts=None if self.starts is None else self.starts[chosen],
            rows=None if self.rows is None else self.rows[chosen],
        )
