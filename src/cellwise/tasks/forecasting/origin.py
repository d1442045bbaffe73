"""Where the rows of a table came from, so that a sentence about one can say where to look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cellwise.tasks.forecasting.encoding import line_at

__all__ = ["Origin"]


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
