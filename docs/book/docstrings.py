"""What reStructuredText would take for something else in docstrings that are written as plain text."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["plain", "setup"]

# A parameter described by a letter alone, as in "input_size: D.", which else begins a list from A to Z.
_LETTER = re.compile(r"^(\s*:param [^:]+:) ([A-Z]\.)$")
_AFTER_NAPOLEON = 900


def plain(line: str) -> str:
    """A line of a docstring that says what it seems to say.

    >>> plain(":param input_size: D.")
    ':param input_size: \\\\D.'
    """
    return _LETTER.sub(r"\1 \\\2", line)


def _tidy(app: Any, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    lines[:] = map(plain, lines)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _tidy, priority=_AFTER_NAPOLEON)
