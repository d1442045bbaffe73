"""One line on stderr that changes, where it can be wiped out again: on a terminal."""

from __future__ import annotations

import sys

__all__ = ["LiveLine"]


class LiveLine:
    """Shows what is being done now; nothing in a log."""

    def __init__(self) -> None:
        self._is_live, self._width = sys.stderr.isatty(), 0

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._is_live:
            print(f"\r{text:<{self._width}}", end="", file=sys.stderr, flush=True)
            self._width = max(self._width, len(text))

    def keep(self, text: str) -> None:
        """Print a whole line, which stays."""
        self.wipe()
        print(text, file=sys.stderr, flush=True)

    def wipe(self) -> None:
        """Leave nothing that is no whole line."""
        if self._width:
            self.show("")
            print("\r", end="", file=sys.stderr, flush=True)
            self._width = 0
